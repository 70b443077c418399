"""``make walkthrough``: follows docs/walkthrough.md to the letter, and takes its pictures.

The server is a fresh clone of this checkout, started as the page says; it, the browser and the devices are
machines of the lab's network. The page's commands are run as they stand, what is clicked is there in bold,
and no step, command or picture of it is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

from tests.browser import chromium
from tests.lab.demo import Report
from tests.lab.internet import WEB4
from tests.lab.machine import Machine
from tests.lab.net import Lab, LabError, Namespace, run
from tests.lab.outside import AddressPage, PackageProxy
from tests.lab.processes import CHECKOUT, Daemon, clean_environment, wait_for
from tests.needs import missing

PAGE = CHECKOUT / "docs" / "walkthrough.md"
REQUIRED = ("root", "netns", "tun", "chromium")
PROBLEMS = (LabError, Error, AssertionError, OSError, subprocess.SubprocessError)
INSTALL_SECONDS = 900.0
ACTION_MS = 60_000
RULE_SECONDS = 20.0  # a rule is in force on a device, on a busy machine
VIEWPORT = {"width": 1200, "height": 750}
ADDRESS_PAGE = "myaddress.example"
COLLEAGUE = "colleague@example.com"
LINK = re.compile(r"http://\S+/sign-in/link/\S+")
HIDE_SECRETS = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode()); )
    text.data = text.data.replace(/(tskey-auth-|\\/invite\\/)[\\w-]+/g, "$1…");
}"""


@dataclass
class Step:
    """A section of the page; what it says to run and to look at is taken from it one by one, in order."""

    title: str
    text: str
    commands: list[str]
    pictures: list[str]

    def command(self) -> str:
        return self._next(self.commands, "command")

    def picture(self) -> str:
        return self._next(self.pictures, "picture")

    def _next(self, rest: list[str], what: str) -> str:
        if not rest:
            raise LabError(f"the page has no further {what} in {self.title!r}")
        return rest.pop(0)

    def names(self, word: str) -> str:
        """``word``, which the page must have in bold."""
        if f"**{word}**" not in " ".join(self.text.split()):
            raise LabError(f"the page does not name {word!r} in {self.title!r}")
        return word

    def is_done(self) -> None:
        if rest := self.commands + self.pictures:
            raise LabError(f"the page has more in {self.title!r}: {rest}")


def read_steps(page: str) -> list[Step]:
    """The sections of the page."""
    steps = []
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        commands = [line for block in blocks for line in block.splitlines()]
        steps.append(Step(title, text, commands, re.findall(r"\(screenshots/([\w-]+\.png)\)", text)))
    return steps


class Host:
    """The server's machine: a fresh clone, and pip's way to its packages, which the lab has not."""

    def __init__(self, namespace: Namespace, packages: PackageProxy) -> None:
        self.clone = namespace.folder / "trenza"
        self.namespace = namespace
        run("git", "-c", "safe.directory=*", "clone", "--quiet", CHECKOUT, self.clone)
        self.environment = clean_environment(PIP_PROXY=packages.url)
        del self.environment["PYTHONPATH"]  # that is this checkout
        self.daemon: Daemon | None = None

    def _inside(self, line: str) -> list[str]:
        return ["sh", "-c", 'cd "$0" && exec sh -c "$1"', str(self.clone), line]

    def serve(self, line: str) -> str:
        """Run the line that starts the server; returns the link that it prints."""
        daemon = self.daemon = Daemon(
            self.namespace, self._inside(line), self.namespace.folder / "serve.log", self.environment
        )
        daemon.start()

        def printed() -> str:
            if not daemon.running:
                raise RuntimeError(f"the server ended\n{daemon.tail()}")
            return found[0] if (found := LINK.search(daemon.log.read_text(errors="replace"))) else ""

        return wait_for("the server prints a link", printed, seconds=INSTALL_SECONDS)

    def type(self, line: str) -> str:
        """Run another line in the clone; returns what it said."""
        return self.namespace.run(*self._inside(line), environment=self.environment).stdout


class Walk:
    """Who walks, and the steps. What one leaves for the next is here."""

    def __init__(self, host: Host, laptop: Machine, office: Machine, chrome: Browser, out: Path) -> None:
        self.host, self.laptop, self.office = host, laptop, office
        self.chrome, self.out = chrome, out
        self.owner = self._reader()
        self.link = ""

    def run(self, report: Report) -> None:
        """Every step of the page, in its order."""
        steps = read_steps(PAGE.read_text())
        if [step.title for step in steps] != list(STEPS):
            raise LabError(f"the page has other steps: {[step.title for step in steps]}")
        for step in steps:
            with report.step(step.title) as results:
                results.append(STEPS[step.title](self, step))
                step.is_done()

    def _reader(self) -> Page:
        """Somebody's browser."""
        context = self.chrome.new_context(**chromium.page_options() | {"viewport": VIEWPORT})
        page = context.new_page()
        page.set_default_timeout(ACTION_MS)
        return page

    def _picture(self, step: Step, page: Page, show: str = "body") -> None:
        """The page's next picture, with what ``show`` selects in sight."""
        page.evaluate("(what) => document.querySelector(what).scrollIntoView({block: 'nearest'})", show)
        page.evaluate("document.fonts.ready")
        page.evaluate(HIDE_SECRETS)
        page.mouse.move(0, 0)
        page.screenshot(path=str(self.out / step.picture()))

    # -- the steps: each returns what came of it

    def start(self, step: Step) -> str:
        self.link = self.host.serve(step.command())
        return self.link.partition("/sign-in")[0]

    def sign_in(self, step: Step) -> str:
        self.owner.goto(self.link)
        expect(self.owner.get_by_role("heading", name=step.names("Overview"))).to_be_visible()
        self._picture(step, self.owner)
        return "the owner is in"

    def add_laptop(self, step: Step) -> str:
        page = self.owner
        press(page.locator("header.top"), step.names("Add device"))
        install, join = step.command(), step.command()
        for line in (install, join):
            expect(page.locator("#sheet")).to_contain_text(line)  # the panel says the same
        self._picture(step, page)
        self.laptop.type(install)
        up = self.laptop.start(join)
        page.goto(up.link())
        expect(page.locator("#hostname")).to_have_text("laptop")
        self._picture(step, page)
        press(page, step.names("Add this device"))
        press(page, step.names("Approve it now"))
        expect(page.get_by_role("heading", name="laptop")).to_be_visible()
        return up.ends_well().splitlines()[-1]

    def add_office(self, step: Step) -> str:
        page = self.owner
        go_to(page, step.names("Keys"))
        press(page.locator("main"), step.names("Create auth key"))
        page.get_by_label("What it is for").fill("office")
        press(page.locator("#sheet"), step.names("Create key"))
        with page.expect_download() as download:
            press(page.locator("#sheet"), step.names("Shell script"))
        name = download.value.suggested_filename
        download.value.save_as(self.office.home / name)
        self._picture(step, page)
        press(page.locator("#sheet"), step.names("I have it, close"))
        self.joining = self.office.start(step.command())
        self.joining.says("joining")
        return f"{name} is running on office"

    def approve(self, step: Step) -> str:
        page = self.owner
        go_to(page, step.names("Approvals"))
        waiting = page.locator("#queue tbody tr", has_text="office")
        expect(waiting).to_be_visible()
        self._picture(step, page)
        step.names("Approve")
        press(waiting, "Approve office")
        said = self.joining.ends_well()
        go_to(page, step.names("Devices"))
        for name in ("laptop", "office"):
            expect(device(page, name)).to_contain_text("Online")
        self._picture(step, page)
        return said.splitlines()[-1]

    def ping(self, step: Step) -> str:
        pong = self.laptop.type(step.command())
        if "pong from office" not in pong:
            raise LabError(pong)
        counts = self.laptop.type(step.command())
        if " 0% packet loss" not in counts:
            raise LabError(counts)
        go_to(self.owner, step.names("Map"))
        self.owner.wait_for_selector("#map[data-drawn='2 1']")
        self._picture(step, self.owner)
        return pong.splitlines()[-1]

    def write_rule(self, step: Step) -> str:
        page = self.owner
        self.office.start(step.command())
        self._waits_for(step, answer=True)
        go_to(page, step.names("Access controls"))
        page.wait_for_selector("#access[data-ready]")
        self._open_ports(step, "tcp:22")
        press(page, step.names("Preview"))
        page.wait_for_selector(".preview-list .is-loss")
        self._picture(step, page)
        press(page, step.names("Save"))
        expect(page.locator("#save-bar")).to_be_hidden()
        self._waits_for(step, answer=False)
        press(page, "Rules")
        self._open_ports(step, "*")
        press(page, "Save")
        expect(page.locator("#save-bar")).to_be_hidden()
        self._waits_for(step, answer=True)
        press(page, step.names("History"))
        expect(page.locator(".version-list li")).to_have_count(2)
        return "a port closed and opened with the rule"

    def _waits_for(self, step: Step, *, answer: bool) -> None:
        """Run the page's next command on the laptop until office answers it, or does not."""
        line = step.command()
        says = "answers" if answer else "is silent"
        wait_for(f"office {says}", lambda: self._is_answered(line) == answer, seconds=RULE_SECONDS)

    def _is_answered(self, line: str) -> bool:
        return self.laptop.start(line).process.wait(RULE_SECONDS) == 0

    def _open_ports(self, step: Step, ports: str) -> None:
        """Change the one rule of the policy, in the draft."""
        page = self.owner
        page.locator("#open-grants-1").click()
        press(page.locator("#menu-grants-1"), step.names("Change…"))
        page.get_by_label(step.names("Ports"), exact=True).fill(ports)
        press(page.locator("#sheet"), step.names("Change it"))
        expect(page.locator("#save-bar")).to_be_visible()

    def offer(self, step: Step) -> str:
        page = self.owner
        self.office.type(step.command())
        self._open(step, "office")
        step.names("Exit node")
        switch = page.get_by_role("switch", name="Approve office as exit node")
        switch.click()
        expect(page.locator("#toasts")).to_contain_text("Others may use office as exit node.")
        expect(page.locator("#top-waiting")).to_be_hidden()  # nothing waits any more
        expect(switch).to_be_checked()
        self._picture(step, page, "#offers")
        return "office is an exit node"

    def use(self, step: Step) -> str:
        page = self.owner
        before = self.laptop.type(step.command()).strip()
        self._open(step, "laptop")
        card = page.locator("#exit-choice")
        expect(card).to_contain_text(step.names("Way to the internet"))
        card.get_by_role("combobox").select_option(label="office")
        press(card, step.names("Set"))
        expect(card).to_contain_text("Uses exit node office")
        self._picture(step, page, "#exit-choice")
        again, office = step.command(), self.office.namespace.address4
        wait_for(f"the laptop is seen as {office}", lambda: self.laptop.type(again).strip() == office)
        if before != self.laptop.namespace.address4:
            raise LabError(f"the laptop was seen as {before}")
        return f"the internet saw the laptop as {before}, and sees it as {office} now"

    def _open(self, step: Step, name: str) -> None:
        """A device's page, by way of the list."""
        go_to(self.owner, step.names("Devices"))
        device(self.owner, name).get_by_role("link", name=step.names(name), exact=True).click()
        expect(self.owner.get_by_role("heading", name=name)).to_be_visible()

    def invite(self, step: Step) -> str:
        page, guest = self.owner, self._reader()
        go_to(page, step.names("Users"))
        press(page.locator("main"), step.names("Invite"))
        page.get_by_label("E-mail address").fill(COLLEAGUE)
        press(page.locator("#sheet"), "Invite")
        invitation = page.locator("#invite-link").inner_text()
        self._picture(step, page)
        press(page.locator("#sheet"), step.names("Done"))
        guest.goto(invitation)
        press(guest, step.names("Sign in to join"))
        expect(guest.get_by_role("heading", name="Sign in")).to_be_visible()
        self.host.type(step.command())
        found = LINK.search(self.host.type(step.command()))
        if found is None:
            raise LabError("no link was printed")
        guest.goto(found[0])
        press(guest, step.names("Accept and join"))
        expect(guest.get_by_text("Welcome to")).to_be_visible()
        guest.context.close()
        go_to(page, "Users")
        expect(page.locator("#people-list")).to_contain_text(COLLEAGUE)
        return f"{COLLEAGUE} has joined"


STEPS: dict[str, Callable[[Walk, Step], str]] = {
    "1. Start the server": Walk.start,
    "2. Sign in": Walk.sign_in,
    "3. Add your laptop": Walk.add_laptop,
    "4. Add another one with an auth key": Walk.add_office,
    "5. Approve it": Walk.approve,
    "6. See them reach each other": Walk.ping,
    "7. Write a rule, and see it take effect": Walk.write_rule,
    "8. Make one an exit node": Walk.offer,
    "9. Use it from the laptop": Walk.use,
    "10. Invite a colleague": Walk.invite,
}


def press(place: Page | Locator, name: str) -> None:
    """Click the button or link of this name."""
    button, link = (place.get_by_role(role, name=name, exact=True) for role in ("button", "link"))
    button.or_(link).first.click()


def go_to(page: Page, section: str) -> None:
    """Click a section in the navigation."""
    page.locator(".nav-list a", has_text=section).first.click()
    expect(page.locator(".nav-list [aria-current=page]")).to_contain_text(section)
    page.wait_for_selector("body[data-connection=on]")


def device(page: Page, name: str) -> Locator:
    """A device's row."""
    return page.locator("#device-list tbody tr", has=page.get_by_role("link", name=name, exact=True))


@contextlib.contextmanager
def chrome_in(namespace: Namespace) -> Iterator[Browser]:
    """A browser on a machine of the lab."""
    starter = namespace.folder / "chromium"
    starter.write_text(f'#!/bin/sh\nexec ip netns exec {namespace.name} {chromium.executable()} "$@"\n')
    starter.chmod(0o755)
    with (
        sync_playwright() as playwright,
        contextlib.closing(chromium.launch(playwright, str(starter))) as running,
    ):
        yield running


def walk(lab: Lab, out: Path, report: Report) -> str:
    """Make the machines and walk; returns what went wrong."""
    server = lab.host("server")  # the first host of the lab has the page's address
    laptop, office = (Machine(lab.host(name)) for name in ("laptop", "office"))
    laptop.knows(WEB4, ADDRESS_PAGE)
    host = None
    try:
        with (
            PackageProxy(server) as packages,
            AddressPage(lab.internet, WEB4),
            chrome_in(lab.host("desk")) as chrome,
        ):
            host = Host(server, packages)
            Walk(host, laptop, office, chrome, out).run(report)
    except PROBLEMS as error:
        if host is not None and host.daemon is not None:
            print(f"--- server\n{host.daemon.tail()}")
        return str(error)
    except KeyboardInterrupt:
        return "interrupted"
    return ""


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the pictures")
    out: Path = parser.parse_args().out
    if reasons := [reason for name in REQUIRED if (reason := missing(name))]:
        print(
            f"make walkthrough needs root, namespaces, TUN and Chromium: {'; '.join(reasons)}",
            file=sys.stderr,
        )
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # both end it in order
    out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=ACTION_MS)
    report = Report()
    with Lab() as lab:
        problem = walk(lab, out, report)
    report.summary(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
