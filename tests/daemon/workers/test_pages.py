"""One answer for all workers, of what each of them says: merged, sorted, limited, and who is missing is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, succeed

from marketfeed.api.clients import ClientFacts
from marketfeed.api.news import News
from marketfeed.api.pages import Partial
from marketfeed.daemon.workers.answers import Family, StatusPart
from marketfeed.daemon.workers.messages import Question
from marketfeed.daemon.workers.pages import CrewLists, CrewMetrics, CrewStatus
from marketfeed.daemon.workers.slots import SlotFacts, State
from tests.strategies import property_test


class FakeCrew:
    """`answers`: by the number of the worker; None: it does not answer."""

    def __init__(self, answers: dict[int, Any], states: dict[int, State] | None = None) -> None:
        self.answers = answers
        states = states or {}
        self.facts = [
            SlotFacts(number, states.get(number, State.RUNNING), number - 1, 4.0, number) for number in answers
        ]
        self.asked: list[Question] = []

    def ask_all(self, question: Question) -> Deferred[list[tuple[int, bytes | None]]]:
        self.asked.append(question)
        found = [(n, None if each is None else msgspec.json.encode(each)) for n, each in self.answers.items()]
        return succeed(found)


class Reloaded:
    succeeded, last = True, 5.0


def now(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addCallback(found.append)
    return found[0]


def client(name: str, waiting: int = 0, age: float = 1.0) -> ClientFacts:
    return ClientFacts(name, "198.51.100.1:5", "", age, waiting, 100, 0, None, 1)


class TestLists:
    @property_test
    @given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=4), st.integers(1, 10))
    def test_the_largest_of_all_come_first(self, queues: list[list[int]], limit: int) -> None:
        """Each worker answers so many of its own, in their order; of these the first are those of all."""
        of_each = {
            number: sorted((client(f"{number}-{at}", size) for at, size in enumerate(sizes)), key=lambda c: -c.waiting)
            for number, sizes in enumerate(queues, 1)
        }
        crew = FakeCrew({number: rows[:limit] for number, rows in of_each.items()})
        listed = now(CrewLists(crew).clients("x", "queue", limit))
        assert [row["waiting"] for row in listed.rows] == sorted(
            (size for sizes in queues for size in sizes), reverse=True
        )[:limit]
        assert all(row["client"].startswith(f"{row['worker']}-") for row in listed.rows)
        assert crew.asked == [Question(0, "clients", "x", "queue", limit)]

    def test_who_does_not_answer_is_left_out(self) -> None:
        listed = now(CrewLists(FakeCrew({1: None, 2: [client("b")]})).clients("", "age", 5))
        assert listed == Partial([{**msgspec.structs.asdict(client("b")), "worker": 2}], [1])

    def test_one_client_is_at_one_of_them(self) -> None:
        lists = CrewLists(FakeCrew({1: None, 2: {"client": "a"}, 3: None}))
        assert now(lists.client("a")) == {"client": "a", "worker": 2}
        assert now(CrewLists(FakeCrew({1: None})).client("a")) is None

    def test_one_stream_has_the_clients_of_all(self) -> None:
        def part(kept: int, *clients: ClientFacts) -> dict[str, Any]:
            return {"stream": "trade@A", "clients": len(clients), "kept": kept, "subscribers": list(clients)}

        crew = FakeCrew({1: part(1, client("a", 3)), 2: None, 3: part(7, client("b", 5), client("c", 1))})
        found = now(CrewLists(crew).stream("trade@A"))
        assert (found["clients"], found["kept"]) == (3, 7)
        assert [(row["client"], row["worker"]) for row in found["subscribers"]] == [("b", 3), ("a", 1), ("c", 3)]


class TestMetrics:
    def test_each_sample_says_whose_it_is_and_each_family_is_there_once(self) -> None:
        def of(value: float) -> list[Family]:
            return [
                Family("marketfeed_clients", "Clients.", "gauge", [("marketfeed_clients", {}, value)]),
                Family("marketfeed_x", "X.", "counter", [("marketfeed_x_total", {"kind": "trade"}, value)]),
            ]

        text = now(CrewMetrics(FakeCrew({1: of(3), 2: None, 3: of(4)}), Reloaded(), 64).text()).decode()
        assert text.count("# TYPE marketfeed_clients gauge") == 1
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert samples["marketfeed_clients", ("worker", "3")] == 4
        assert samples["marketfeed_x_total", ("kind", "trade"), ("worker", "1")] == 3
        assert samples["marketfeed_workers",] == 3
        assert [samples["marketfeed_worker_up", ("worker", n)] for n in "123"] == [1, 0, 1]
        assert samples["marketfeed_worker_restarts_total", ("worker", "3")] == 2
        assert samples["marketfeed_last_reload_successful", ("worker", "parent")] == 1
        assert ("process_max_fds", ("worker", "parent")) in samples


def status(parts: dict[int, StatusPart | None], states: dict[int, State] | None = None, own: Any = ()) -> Any:
    crew = FakeCrew(dict(parts), states)
    made = CrewStatus(crew, "boot", lambda: 5.0, lambda: {"--workers": "2"}, lambda: list(own))
    return msgspec.json.decode(now(made.json(7)))


class TestStatus:
    def test_what_all_say_is_said_once_and_of_others_who(self) -> None:
        away, slow = News("bad", "source-down", "Redis is away."), News("warn", "slow-clients", "One is slow.")
        found = status({1: StatusPart({"worker": 1}, [away], 3), 2: StatusPart({"worker": 2}, [slow, away], 4)})
        assert [(each["name"], each["text"]) for each in found["news"]] == [
            ("source-down", "Redis is away."),
            ("slow-clients", "Worker 2: One is slow."),
        ]
        assert found["summary"] == "Redis is away. Worker 2: One is slow. 7 clients."
        assert [(row["worker"], row["options"]) for row in found["workers"]] == [
            (1, {"--workers": "2"}),
            (2, {"--workers": "2"}),
        ]

    @pytest.mark.parametrize(
        ("state", "name", "text"),
        [
            (State.RUNNING, "worker-silent", "Worker 1 does not answer."),
            (State.STARTING, "worker-down", "Worker 1 is starting."),
            (State.WAITING, "worker-down", "Worker 1 has ended again and again; it is started in 4 s."),
        ],
    )
    def test_a_worker_that_is_not_there_is_news(self, state: State, name: str, text: str) -> None:
        """A warning, while others are; with nobody left it is bad."""
        found = status({1: None, 2: StatusPart({}, [], 1)}, {1: state})
        assert found["news"] == [{"level": "warn", "name": name, "text": text}]
        assert found["healthy"]
        assert not status({1: None}, {1: state})["healthy"]

    def test_the_parents_own(self) -> None:
        own = [News("warn", "reload", "The reload found a fault.")]
        assert status({1: StatusPart({}, [], 1)}, own=own)["summary"] == "The reload found a fault. 1 client."
