# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The command `make demo`: run the example DAGs in a real Airflow against the sandbox, and print the results.

1. `example_faceki_kyc_link` runs for three simulated people, who get a link. For each of them, a decision is chosen on
   the sandbox's hosted page. For one of them, the first decision is REVIEW, and a simulated reviewer decides later. In
   the meantime, the sensors wait in the triggerer.
2. `example_faceki_verification` runs for a fourth person, who is verified by images.
3. Airflow's scheduler starts `example_faceki_fetch_records` and `example_faceki_hook_taskflow` according to their
   schedules.

Each task runs in its own process. All tasks together make only one token request, because they share the token file.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_faceki.sandbox import SandboxProcess
from demo.airflow_stack import Airflow, AirflowRefused, fresh_directory, say, wait_for
from demo.examples import connection_to, example_places, kept
from demo.processes import Interrupted, Processes, ProcessFailed, interruptible
from demo.simulated_users import SimulatedUsers

LINK_DAG = "example_faceki_kyc_link"
VERIFY_DAG = "example_faceki_verification"
FETCH_DAG = "example_faceki_fetch_records"
HOOK_DAG = "example_faceki_hook_taskflow"
EXAMPLES = (LINK_DAG, VERIFY_DAG, FETCH_DAG, HOOK_DAG)
RESULT_OF = {
    LINK_DAG: "wait_for_decision",
    VERIFY_DAG: "verify",
    FETCH_DAG: "report",
    HOOK_DAG: "documents",
}
BRANCHES = {"welcome", "report", "decline", "ask_a_person"}
# Maps each record identifier to the buttons that are pressed one after the other on the hosted page.
DECIDING = {
    "customer-1001": ("ACCEPTED",),
    "customer-1002": ("DECLINED",),
    "customer-1003": ("REVIEW", "ACCEPTED"),
}
#: The time limit for each of two waits for DAG runs. The runs take about 40 s on an idle machine with two cores.
RUNS_TIMEOUT_SECONDS = 400.0
FAILED_STATES = {"failed", "upstream_failed"}
#: When a task instance reaches one of these states, a line is printed.
SHOWN_STATES = {"success", "deferred", "up_for_retry", *FAILED_STATES}
TAIL_LINES = 25


class Demo:
    """One demonstration from the start of Airflow to the report. All failed checks are collected in `wrong`.

    :param work: the directory for all files of the demonstration.
    """

    def __init__(self, work: Path, faceki: SandboxProcess, processes: Processes) -> None:
        self.work = work
        self.airflow = Airflow(work / "airflow")
        self.faceki = faceki
        self.processes = processes
        self.users = SimulatedUsers(faceki, DECIDING, self._waits_in_the_triggerer)
        self.wrong: list[str] = []
        self._began = time.monotonic()
        self._who: dict[str, str] = {}
        self._shown: set[tuple[str, str, int, str, int]] = set()
        self._retried: dict[tuple[str, str, int], dict[str, Any]] = {}
        self._waiting: set[str] = set()

    def start(self) -> None:
        connection = {"AIRFLOW_CONN_FACEKI_DEFAULT": json.dumps(connection_to(self.faceki))}
        self.airflow.start(self.processes, connection | example_places(self.work))
        self.airflow.wait_until_ready(self.processes, EXAMPLES)
        version = self.airflow.call("GET", "version")["version"]
        say(f"Airflow {version} is up after {self._elapsed():.0f} s; the sandbox on {self.faceki.url}.\n")

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def verify_people(self) -> None:
        for identifier in DECIDING:
            run_id = self.airflow.trigger(LINK_DAG, {"record_identifier": identifier})
            self._who[run_id] = identifier
        self.airflow.trigger(VERIFY_DAG, {})
        self._run({LINK_DAG: len(DECIDING), VERIFY_DAG: 1})

    def let_the_scheduler_start(self) -> None:
        self._run({FETCH_DAG: 1, HOOK_DAG: 1})

    def _run(self, runs: Mapping[str, int]) -> None:
        """Unpause DAGs and wait until their runs have finished or a task has failed.

        During the wait, the simulated people press buttons.

        :param runs: maps each DAG id to the expected number of runs.
        """
        for dag_id in runs:
            self.airflow.unpause(dag_id)

        def finished() -> bool:
            failed = self._follow()
            self.users.act()
            if failed:
                return True
            for dag_id, wanted in runs.items():
                states = [run["state"] for run in self.airflow.runs(dag_id)]
                if len(states) < wanted or not set(states) <= {"success", "failed"}:
                    return False
            return True

        wait_for(f"{' and '.join(runs)} to finish", finished, RUNS_TIMEOUT_SECONDS, self.processes)
        self._follow()

    def _follow(self) -> bool:
        """Print a line for each task instance with a new state, and return whether a task instance has failed.

        Only the states of `SHOWN_STATES` are printed. A further try with the same state is printed too.
        """
        tasks = self.airflow.all_tasks()
        for task in sorted(tasks, key=lambda each: str(each["end_date"] or each["start_date"] or "")):
            instance = (task["dag_run_id"], task["task_id"], task["map_index"])
            if task["state"] == "up_for_retry" or task["try_number"] > 1:
                self._retried[instance] = task
            shown = (*instance, task["state"], task["try_number"])
            if task["state"] in SHOWN_STATES and shown not in self._shown:
                self._shown.add(shown)
                self._show(task)
        who_waits = {self._who.get(task["dag_run_id"]) for task in tasks if task["state"] == "deferred"}
        self._waiting |= {who for who in who_waits if who}
        return any(task["state"] in FAILED_STATES for task in tasks)

    def _show(self, task: Mapping[str, Any]) -> None:
        name = task["dag_id"].removeprefix("example_faceki_")
        if who := self._who.get(task["dag_run_id"]):
            name += f" {who}"
        index = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
        state = {
            "deferred": "deferred: waits in the triggerer, no worker is held",
            "up_for_retry": "fails, Airflow tries again",
        }.get(task["state"], task["state"])
        again = f" (try {task['try_number']})" if task["try_number"] > 1 else ""
        say(f"{self._elapsed():4.0f} s  {name:27} {task['task_id'] + index:18} {state}{again}")

    def _waits_in_the_triggerer(self, identifier: str) -> bool:
        """Return whether the sensor for this record identifier has been in the state `deferred`."""
        return identifier in self._waiting

    def _failed_tasks(self, dag_id: str) -> list[dict[str, Any]]:
        return [task for task in self.airflow.tasks(dag_id) if task["state"] in FAILED_STATES]

    def report(self) -> None:
        """Print the results of all runs and check them."""
        say("")
        for dag_id in EXAMPLES:
            for run in self.airflow.runs(dag_id):
                self._report_run(dag_id, run)
        state: Any = self.faceki.control.get("state")
        counters: Any = self.faceki.control.get("counters")
        decided = Counter({word: count for word, count in state["decisions"].items() if count})
        tasks = sum(len(self.airflow.tasks(dag_id)) for dag_id in EXAMPLES)
        say(f"\nLinks made      {len(state['links'])}")
        say(f"Decisions       {', '.join(f'{count} {word}' for word, count in decided.items())}")
        say(f"Task instances  {tasks}, each in a process of its own")
        say(f"Token requests  {counters['tokens_issued']}")
        say(f"Full records    below {self.work}: {', '.join(kept(self.work))}")
        for task in self._retried.values():
            say(f"Tried again     {task['dag_id']}.{task['task_id']}: {self.airflow.error_of(task)}")
        self._expect("links made", len(state["links"]), len(DECIDING))
        # `DECIDING` contains only persons who are verified through a link. One more person is verified by images,
        # without a link. Therefore one ACCEPTED is added to the expected decisions.
        self._expect("decisions", decided, Counter(["ACCEPTED", *(each[-1] for each in DECIDING.values())]))
        self._expect("token requests", counters["tokens_issued"], 1)

    def _report_run(self, dag_id: str, run: dict[str, Any]) -> None:
        by = "scheduled" if run["run_type"] == "scheduled" else "triggered"
        good = run["state"] == "success"
        what = self._result(dag_id, run["dag_run_id"]) if good else ""
        say(f"{run['state']:8} {dag_id:29} {by}  {what}".rstrip())
        if not good:
            self.wrong.append(f"{dag_id}, run {run['dag_run_id']}: {run['state']}")
            self.wrong += [
                f"{task['task_id']} {task['state']}: {self.airflow.error_of(task)}"
                for task in self._failed_tasks(dag_id)
                if task["dag_run_id"] == run["dag_run_id"]
            ]

    def _result(self, dag_id: str, run_id: str) -> str:
        """Return the result of a DAG run as a short text for the printed report."""
        result = self.airflow.xcom(dag_id, run_id, RESULT_OF[dag_id])
        if dag_id == FETCH_DAG:
            return "records: " + ", ".join(f"{count} {word}" for word, count in result.items())
        if dag_id == HOOK_DAG:
            return "the workflow asks for: " + ", ".join(result)
        who, decision = result["record_identifier"], result["decision"]
        if dag_id == LINK_DAG:
            self._expect(f"decision on {who}", decision, DECIDING[who][-1])
        who = who if dag_id == LINK_DAG else "by images"
        ran = {task["task_id"] for task in self.airflow.tasks(dag_id, run_id)}
        return f"{who}: {decision}, so {', '.join(ran & BRANCHES)}"

    def _expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.wrong.append(f"{what}: {found}, expected {wanted}")


def tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])


def demonstrate(work: Path) -> list[str]:
    """Run the demonstration and return the messages of all failed checks.

    If an error ended the demonstration early, the message of this error is returned too.
    """
    with SandboxProcess() as faceki, Processes(work) as processes:
        demo = Demo(work, faceki, processes)
        say("Starting Airflow (scheduler, triggerer, DAG processor, API server) and the sandbox ...")
        try:
            demo.start()
            demo.verify_people()
            demo.let_the_scheduler_start()
            demo.report()
            return demo.wrong
        except (ProcessFailed, AirflowRefused, TimeoutError) as error:
            say(f"\nThe last lines of Airflow's log:\n{tail(work / 'airflow.log')}")
            return [*demo.wrong, str(error)]


def main() -> int:
    work = fresh_directory("demo")
    began = time.monotonic()
    try:
        with interruptible():
            wrong = demonstrate(work)
    except Interrupted as interrupted:
        say(f"\nInterrupted by {interrupted}; everything that was started has been ended.")
        return 128 + interrupted.number
    if wrong:
        say("\nFAILED\n" + "\n".join(f"  {each}" for each in wrong))
        say(f"Logs: {work / 'airflow.log'} and, by task, {work / 'airflow' / 'logs'}")
        return 1
    say(f"\nDone in {time.monotonic() - began:.0f} s; nothing is left running. Airflow's logs: {work}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
