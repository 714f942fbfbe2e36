// What a program for Node does with OpenAI's own client, against the installation that it is given.
// Prints one line of JSON for each thing it did, or ends with what went wrong.
//
//   node openai.mjs <base URL> <token> <model> <model for vectors>
import OpenAI from "openai";

const [baseURL, apiKey, model, vectors] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Hello?" }];

function tell(what, value) {
  console.log(JSON.stringify([what, value]));
}

const listed = [];
for await (const each of await client.models.list()) listed.push(each.id);
tell("models", listed);

const whole = await client.chat.completions.create({ model, messages });
tell("whole", [whole.choices[0].message.content, whole.usage.total_tokens]);

let text = "";
let usage = null;
const stream = await client.chat.completions.create({
  model,
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
tell("streamed", [text, usage.completion_tokens]);

const tool = { type: "function", function: { name: "weather", parameters: { type: "object" } } };
const called = await client.chat.completions
  .stream({ model, messages: [{ role: "user", content: "Weather?" }], tools: [tool] })
  .finalChatCompletion();
const [call] = called.choices[0].message.tool_calls;
tell("called", [called.choices[0].finish_reason, call.function.name, call.function.arguments]);

const response = await client.responses.create({ model, input: "Hello?" });
const next = await client.responses.create({
  model,
  input: "And?",
  previous_response_id: response.id,
  background: true,
  stream: true,
});
let last = null;
for await (const event of next) last = event;
const kept = await client.responses.retrieve(last.response.id);
const items = await client.responses.inputItems.list(response.id);
const replayed = [];
const replay = await client.responses.retrieve(kept.id, {
  stream: true,
  starting_after: last.sequence_number - 1,
});
for await (const event of replay) replayed.push(event.type);
await client.responses.delete(response.id);
const gone = await client.responses.retrieve(response.id).catch((error) => error.status);
tell("responses", [
  response.output_text,
  [kept.status, kept.output_text, kept.previous_response_id === response.id],
  items.data[0].content[0].text,
  replayed,
  gone,
]);

const embedded = await client.embeddings.create({ model: vectors, input: ["one", "three"] });
tell("vectors", embedded.data.map((each) => Array.from(each.embedding)));

async function failure(request, who = client) {
  try {
    await who.chat.completions.create(request);
  } catch (error) {
    return [error.constructor.name, error.status, error.code, error.param];
  }
  return "none";
}
tell("unknown", await failure({ model: "nobody/nothing", messages }));
tell("refused", await failure({ model, messages, n: 2 }));
tell("stranger", await failure({ model, messages }, client.withOptions({ apiKey: "nobody" })));

const leaving = new AbortController();
const endless = await client.chat.completions.create(
  { model, messages: [{ role: "user", content: "Go on and on." }], stream: true },
  { signal: leaving.signal },
);
for await (const chunk of endless) {
  if (chunk.choices[0]?.delta.content) break;
}
leaving.abort();
tell("left", true);
