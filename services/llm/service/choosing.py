"""Which models may answer a request, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.llm.classifying import TaskClassifier
from services.llm.domain.configuration import ROUTE_PREFIX
from services.llm.domain.generation import Classifier, Prompt, estimate_request, model_refused
from services.llm.domain.routing import (
    Candidate,
    Capability,
    Choice,
    Limits,
    Need,
    Offer,
    Passed,
    Plan,
    Policy,
    Price,
    Why,
    choose,
)
from services.llm.service.catalogue import Catalogue, Served, View
from services.runtime.errors import NotFound, PlexusError

_WORDS = {
    Why.GONE: "is not there",
    Why.CAPABILITY: "cannot do what the request needs",
    Why.WINDOW: "has too small a window for it",
    Why.COST: "would cost more than the limit",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller asks.

    Attributes:
        model: `<provider>/<model>`, `route/<name>`, or empty.
        task_class: Of a request that names no model; empty is found out.
        limits: What a candidate must keep.
        switch_midway: Whether another may go on where one breaks off.
        key: Makes repeating it safe; empty where it is not.
        digest: What makes two requests the same.
        agent_id: The agent that asks.
        session_id: What belongs together.
    """

    prompt: Prompt
    model: str = ""
    task_class: str = ""
    limits: Limits = Limits()
    switch_midway: bool = False
    key: str = ""
    digest: str = ""
    agent_id: str = ""
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who may answer, best first, and how that was found."""

    candidates: Sequence[Served]
    offers: Sequence[Offer]
    need: Need
    limits: Limits
    passed: Sequence[Passed] = field(default_factory=tuple)
    route: str = ""
    policy: Policy | None = None
    task_class: str = ""
    classifier: Classifier = Classifier.NOBODY
    hedge_after: float = 0.0

    @property
    def dearest(self) -> Price:
        """The most that any of them charges."""
        prices = [each.price for each in self.offers]
        return Price(max(each.input for each in prices), max(each.output for each in prices))

    @property
    def most_answer(self) -> int:
        """The longest answer that any of them can give, in tokens."""
        return max(self.need.longest_answer(each) for each in self.offers)


class Chooser:
    """Chooses by the route that a request names, or that its class has."""

    def __init__(self, catalogue: Catalogue, classifier: TaskClassifier) -> None:
        self._catalogue = catalogue
        self._classifier = classifier

    def choose(self, view: View, ask: Ask, capability: Capability | None = None) -> Chosen:
        """Who may answer, or has a capability where that is what is asked for.

        Raises:
            NotFound: UNKNOWN_MODEL: there is no such model or route.
            InvalidRequest: MODEL_REFUSED: no model can serve the request within its limits.
        """
        route, task_class, classifier = "", ask.task_class, Classifier.NOBODY
        if ask.model and not ask.model.startswith(ROUTE_PREFIX):
            plan = Plan((Candidate(view.find(ask.model).model.name),))
        else:
            route = ask.model.removeprefix(ROUTE_PREFIX)
            if not route:
                if not task_class and view.by_class:
                    task_class, classifier = self._classifier.classify(ask.prompt)
                route = view.route_for(task_class)
            plan = view.route(route)
        plan = replace(plan, limits=plan.limits.tightened(ask.limits))
        need = Need(
            estimate_request(ask.prompt),
            ask.prompt.max_output_tokens,
            ask.prompt.capabilities | ({capability} if capability else set()),
            ask.session_id,
        )
        found = choose(plan, self._catalogue.offers(view, plan), need)
        if not found.offers:
            raise _nobody(ask.model, found)
        hedged = plan.hedge_after_ms if ask.key and not ask.prompt.tools else 0
        return Chosen(
            candidates=[view.served[each.name] for each in found.offers],
            offers=found.offers,
            need=need,
            limits=plan.limits,
            passed=tuple(found.passed),
            route=route,
            policy=plan.policy if route else None,
            task_class=task_class,
            classifier=classifier,
            hedge_after=hedged / 1000,
        )


def _nobody(asked: str, found: Choice) -> PlexusError:
    if all(each.why is Why.GONE for each in found.passed):
        return NotFound(
            "None of the route's models is there now. ListModels names those that are.",
            reason="UNKNOWN_MODEL",
            metadata={"model": asked},
        )
    told = "; ".join(f"{each.model} {_WORDS.get(each.why, 'does not')}" for each in found.passed)
    return model_refused(f"No model can serve the request: {told}.")
