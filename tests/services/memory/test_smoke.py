from tests.services.memory.conftest import *


async def test_smoke(calls):
    with acting_as(agent()):
        a = await calls.store("The sky is blue", "Water is wet", idempotency_key="k")
        assert [r.outcome for r in a.results] == [1, 1]
        b = await calls.store("The sky is blue", "Water is wet", idempotency_key="k")
        assert a == b
        assert await calls.texts() == ["The sky is blue", "Water is wet"]
        m = a.results[0].memory_id
        print(await calls.get(m))
        c = await calls.store("the SKY is blue!")
        assert c.results[0].outcome == 4, c
        u = await calls.update(m, text="The sky is grey")
        assert await calls.texts(commit_id=a.commit.commit_id) == [
            "The sky is blue",
            "Water is wet",
        ]
        await calls.make_branch("b")
        await calls.store("On the branch", branch="b")
        assert len(await calls.texts(branch="b")) == 3
        x = await calls.merge("b")
        assert x.changed == 1, x
        assert len(await calls.texts()) == 3
        r = await calls.retrieve("sky")
        print(r)
        assert [t.memory.text for t in r.memories] == ["The sky is grey"] and r.degraded
        r = await calls.retrieve()
        assert len(r.memories) == 3
        y = await calls.roll_back(commit_id=a.commit.commit_id)
        assert await calls.texts() == ["The sky is blue", "Water is wet"]
        v = await calls.memory.ListMemoryVersions(memory.ListMemoryVersionsRequest(memory_id=m))
        assert [z.memory.text for z in v.versions] == [
            "The sky is blue",
            "The sky is grey",
            "The sky is blue",
        ]
        from plexus.memory.v1 import feed_service_pb2 as f

        ch = await calls.feed.ListChanges(f.ListChangesRequest())
        print(
            [(c.position, c.memory.text, c.HasField("until")) for c in ch.changes],
            ch.newest_position,
        )
        s = await calls.version.ListSpaces(version_pb.ListSpacesRequest())
        print(s)
        cs = await calls.version.ListCommits(version_pb.ListCommitsRequest())
        print([(c.added, c.changed, c.removed) for c in cs.commits])
        d = await calls.version.DiffRevisions(
            version_pb.DiffRevisionsRequest(
                **{
                    "from": version_pb2.Revision(commit_id=a.commit.commit_id),
                    "to": version_pb2.Revision(branch="b"),
                }
            )
        )
        print(len(d.diffs))
        assert len(d.diffs) == 2
        k1 = await calls.store("The invoice total is 40 euros", record={"subject": "invoice 4711"})
        k2 = await calls.store("The invoice total is 50 euros", record={"subject": "invoice 4711"})
        assert k2.results[0].contradicts == [k1.results[0].memory_id]
        assert (await calls.get(k1.results[0].memory_id)).contradicts == [k2.results[0].memory_id]
        async for w in calls.feed.WatchChanges(f.WatchChangesRequest()):
            print(w)
            break
