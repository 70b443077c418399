"""``make demo``: a server and three devices behind NATs join, talk, and survive a killed server.

Everything runs in network namespaces on this machine and is removed at the end, also after a failure or
Ctrl-C. Exit status 0 only when every step did what it says.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab.net import Lab, LabError
from tests.lab.node import Node
from tests.lab.server import TAILNET, Server
from tests.lab.traffic import Ping, ping, reachable
from tests.lab.trenza import TrenzaNode
from tests.needs import missing

DOWN_SECONDS = 30
PINGS = 300
ONLINE_SECONDS = 2.0
DIRECT_SECONDS = 10.0
REQUIRED = ("root", "netns", "tun")
PROBLEMS = (LabError, OSError, subprocess.SubprocessError)


@dataclass(frozen=True)
class Done:
    """One step of the summary."""

    title: str
    seconds: float
    result: str


class Report:
    """Prints steps as they happen, and the summary."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.done: list[Done] = []

    def say(self, text: str) -> None:
        """A line below the present step."""
        print(f"         {text}", flush=True)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """One step: says its title, then how long it took; what it appends is its result in the summary."""
        began = time.monotonic()
        print(f"[{began - self.started:5.1f} s] {title}", flush=True)
        results: list[str] = []
        yield results
        for line in results:
            self.say(line)
        self.done.append(Done(title, time.monotonic() - began, "; ".join(results)))

    def summary(self, problem: str) -> None:
        print("\nSummary")
        for done in self.done:
            print(f"  ok  {done.seconds:5.1f} s  {done.title}")
        if problem:
            print(f"\nFAILED: {problem}")
        else:
            print(f"\nAll of it worked, in {time.monotonic() - self.started:.0f} s. Everything is removed.")


class Demo:
    """The parties and the steps, in order."""

    def __init__(self, lab: Lab, report: Report) -> None:
        self.report = report
        self.desk = lab.host("desk")
        self.server_host = lab.host("server")
        self.amber = TrenzaNode(lab.router("home").host("amber"))
        self.birch = TrenzaNode(lab.router("cafe").host("birch"))
        self.cedar = TrenzaNode(lab.router("hotel", udp=False).host("cedar"))
        self.nodes = (self.amber, self.birch, self.cedar)

    def run(self) -> None:
        self.start_server()
        self.start_daemons()
        self.join_by_key()
        self.join_by_url()
        self.join_by_command()
        self.relay_then_direct()
        self.blocked_stays_on_the_relay()
        self.all_pairs()
        self.websocket_carrier()
        self.outlive_the_server()
        self.all_is_well_again()

    # -- coming together

    def start_server(self) -> None:
        with self.report.step("The server starts (web, relay, jobs)") as results:
            self.server = Server(self.server_host)
            self.server.start()
            results.append(f"{self.server.url}, relay pid {self.server.relay_pid()}")

    def start_daemons(self) -> None:
        with self.report.step("trenzad starts on three devices") as results:
            for node in self.nodes:
                node.start()
            results.append("amber and birch behind two easy NATs, cedar where all UDP is dropped")

    def join_by_key(self) -> None:
        with self.report.step("amber joins by a pre-approved auth key") as results:
            self.amber.up(self.server.url, auth_key=self.server.auth_key())
            results.append(" ".join(self.amber.addresses()))

    def join_by_url(self) -> None:
        title = "birch joins by its URL: the owner confirms it and approves it in the panel"
        with self.report.step(title) as results:
            up = self.birch.up_in_background(self.server.url)
            self.report.say(url := up.url())
            owner = self.server.person(self.desk)
            owner.confirm_login(url)
            self.birch.wait_state("NeedsMachineAuth")
            self.report.say(self.birch.cli("status", check=False).stdout.splitlines()[0])
            owner.approve(str(self.server.nodes()["birch"]["nodeId"]))
            results.append(f"online {self._online(self.birch):.2f} s after the click")
            up.ends_well()

    def join_by_command(self) -> None:
        title = "cedar joins by a key that approves nothing; manage.py approvenode lets it in"
        with self.report.step(title) as results:
            up = self.cedar.up_in_background(
                self.server.url, f"--auth-key={self.server.auth_key('--reusable')}"
            )
            self.cedar.wait_state("NeedsMachineAuth")
            self.server.approve("cedar")
            took = self._online(self.cedar)
            if took > ONLINE_SECONDS:
                raise LabError(f"cedar was online {took:.2f} s after its approval, not {ONLINE_SECONDS:.0f}")
            results.append(f"online {took:.2f} s after the command")
            up.ends_well()

    def _online(self, node: Node) -> float:
        """Wait until the node runs and the others see it; returns how long that took."""
        began = time.monotonic()
        node.wait_state("Running")
        self.amber.sees(node.name)
        return time.monotonic() - began

    # -- paths

    def relay_then_direct(self) -> None:
        with self.report.step("amber pings birch: first through the relay, then directly") as results:
            began = time.monotonic()
            said = self.amber.cli("ping", "--until-direct", "-c", "20", "birch").stdout
            took = time.monotonic() - began
            for line in said.splitlines():
                self.report.say(line)
            if "via DERP" not in said.splitlines()[0]:
                raise LabError("the first answer did not come through the relay")
            if took > DIRECT_SECONDS:
                raise LabError(f"direct only after {took:.1f} s")
            results.append(f"direct {took:.1f} s after the first ping: {self.amber.direct('birch')}")

    def blocked_stays_on_the_relay(self) -> None:
        with self.report.step("amber pings cedar: without UDP it stays on the relay") as results:
            self.amber.knows_relay("cedar")
            answers = self.amber.ping("cedar", "-c", "3", check=False)
            if [answer.derp for answer in answers] != ["trenza"] * 3:
                raise LabError(f"not three answers through the relay: {answers}")
            results.append("3 of 3 through the relay")

    def all_pairs(self) -> None:
        with self.report.step("Every device pings every other, over IPv4 and IPv6") as results:
            for source, target in itertools.permutations(self.nodes, 2):
                for address in target.addresses():
                    reachable(source.namespace, address)
                    if (counts := ping(source.namespace, address)).lost:
                        raise LabError(f"{source.name} to {target.name} ({address}): {counts}")
            results.append("12 of 12 ways, nothing lost")

    def websocket_carrier(self) -> None:
        with self.report.step("trenza status --json names the control connection") as results:
            for node in self.nodes:
                control = node.status()["Control"]
                if control["Carrier"] != "websocket" or not control["Connected"]:
                    raise LabError(f"{node.name}: {control}")
            results.append("websocket on all three")

    # -- faults

    def outlive_the_server(self) -> None:
        title = f"serve and its workers are killed with -9 for {DOWN_SECONDS} s; the tunnels carry on"
        with self.report.step(title) as results:
            relay = self.server.relay_pid()
            pings = {
                "direct (amber to birch)": Ping(self.amber.namespace, self.birch.address(), count=PINGS),
                "relayed (amber to cedar)": Ping(self.amber.namespace, self.cedar.address(), count=PINGS),
            }
            self.server.kill_web()
            counts = {name: one.result() for name, one in pings.items()}
            if self.server.relay_pid() != relay:
                raise LabError("the relay did not live on")
            if self.server.answers():
                raise LabError("the web server is back too early")
            if not self.amber.peer("birch")["CurAddr"] or self.amber.peer("cedar")["CurAddr"]:
                raise LabError("the paths changed")
            results += [f"{name}: {count}" for name, count in counts.items()]
            if any(count.lost for count in counts.values()):
                raise LabError("; ".join(results))
            self._relay = relay

    def all_is_well_again(self) -> None:
        with self.report.step("serve returns: it adopts the relay, the devices reconnect") as results:
            began = time.monotonic()
            self.server.start()
            if self.server.relay_pid() != self._relay:
                raise LabError("serve did not adopt the running relay")
            for node in self.nodes:
                node.wait_connected()
            results.append(f"all connected after {time.monotonic() - began:.1f} s")
            online = [name for name, device in self.server.nodes().items() if device["online"]]
            if sorted(online) != ["amber", "birch", "cedar"]:
                raise LabError(f"online: {online}")
            for target in (self.birch, self.cedar):
                if (counts := ping(self.amber.namespace, target.address())).lost:
                    raise LabError(f"amber to {target.name}: {counts}")
            results.append(f"manage.py listnodes {TAILNET}: all online")

    def logs(self) -> str:
        """The ends of the daemons' logs, for a failure."""
        daemons = [(node.name, node.daemon) for node in self.nodes]
        if hasattr(self, "server"):
            daemons.append(("server", self.server.daemon))
        return "\n".join(f"--- {name}\n{daemon.tail()}" for name, daemon in daemons)


def main() -> int:
    """Run it; returns the exit status."""
    if reasons := [reason for name in REQUIRED if (reason := missing(name))]:
        print(f"make demo needs root, network namespaces and TUN: {'; '.join(reasons)}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # both end it in order
    report, problem = Report(), ""
    with Lab() as lab:
        demo = Demo(lab, report)
        try:
            demo.run()
        except PROBLEMS as error:
            problem = str(error)
            print(demo.logs())
        except KeyboardInterrupt:
            problem = "interrupted"
    report.summary(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
