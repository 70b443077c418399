"""``trenza netcheck``: what this network lets through, and how far the relays are."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import click

from client.cli.common import Duration, daemon, say, show_json

NANOSECONDS = 1e9
UNKNOWN = "unknown (too few servers answered over UDP)"
PROTOCOLS = {"UPnP": "UPnP", "PMP": "NAT-PMP", "PCP": "PCP"}


@click.command()
@click.option("--format", "form", type=click.Choice(["", "json", "json-line"]), default="", help="json: JSON")
@click.option("--json", "as_json", is_flag=True, help="the same as --format=json")
@click.option("--every", type=Duration(), default=0.0, help="repeat at this interval")
@click.option("--verbose", is_flag=True, help="show the regions' numbers too")
@click.pass_context
def netcheck(context: click.Context, form: str, as_json: bool, every: float, verbose: bool) -> None:
    """Look at the conditions of this network."""
    while True:
        report = daemon(context).post("netcheck")
        if as_json or form == "json":
            show_json(report)
        elif form == "json-line":
            say(json.dumps(report))
        else:
            say(describe(report, verbose=verbose))
        if not every:
            return
        time.sleep(every)


def describe(report: Mapping[str, Any], *, verbose: bool) -> str:
    """The report in the words of ``tailscale netcheck``."""
    varies = report["MappingVariesByDestIP"]
    lines = [
        "",
        "Report:",
        f"\t* Time: {report['Now']}",
        f"\t* UDP: {_yes(report['UDP'])}",
        f"\t* IPv4: {_address(report, 'GlobalV4')}",
        f"\t* IPv6: {_ipv6(report)}",
        f"\t* MappingVariesByDestIP: {UNKNOWN if varies is None else _yes(varies)}",
        f"\t* PortMapping: {_port_mapping(report)}",
        f"\t* Nearest DERP: {_nearest(report)}",
    ]
    if report.get("CaptivePortal") is not None:
        lines.insert(-1, f"\t* CaptivePortal: {_yes(report['CaptivePortal'])}")
    if report["RegionLatency"]:
        lines.append("\t* DERP latency:")
        lines += [_region(report, region, verbose=verbose) for region in _by_latency(report)]
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _port_mapping(report: Mapping[str, Any]) -> str:
    if all(report.get(name) is None for name in PROTOCOLS):
        return "not checked"
    offered = ", ".join(word for name, word in PROTOCOLS.items() if report.get(name))
    return (
        f"{offered} ({report['PortMapped']} is forwarded)" if report.get("PortMapped") else offered or "none"
    )


def _address(report: Mapping[str, Any], name: str) -> str:
    return f"yes, {report[name]}" if report[name] else "(no addr found)"


def _ipv6(report: Mapping[str, Any]) -> str:
    if report["GlobalV6"] or report["IPv6"]:
        return _address(report, "GlobalV6")
    return "no, but OS has support" if report["OSHasIPv6"] else "no, unavailable in OS"


def _nearest(report: Mapping[str, Any]) -> str:
    if not report["RegionLatency"]:
        return "unknown (no response to latency probes)"
    region = report["Regions"].get(str(report["PreferredDERP"]))
    return region["RegionName"] if region else "[none]"


def _by_latency(report: Mapping[str, Any]) -> list[str]:
    latencies = report["RegionLatency"]
    return sorted(report["Regions"], key=lambda region: (latencies.get(region) or float("inf"), int(region)))


def _region(report: Mapping[str, Any], region: str, *, verbose: bool) -> str:
    names, latency = report["Regions"][region], report["RegionLatency"].get(region)
    text = f"{latency / NANOSECONDS * 1000:.1f}ms" if latency else ""
    number = f"derp{region}, " if verbose else ""
    return f"\t\t- {names['RegionCode']:>3}: {text:<7} ({number}{names['RegionName']})"
