"""What a person runs on the host of a new relay: its settings, and the commands that make it a service."""

from __future__ import annotations

from controlplane.env import Environment
from controlplane.models import Relay
from controlplane.services.downloads import script_context

ENV_FILE = "/etc/trenza/relay.env"
UNIT = "trenza-relay.service"  # under /download/ (see :mod:`controlplane.services.downloads`)
INSTALL = """\
sudo sh <<'END'
set -eu
python3 -m venv /opt/trenza
set -- --quiet --require-hashes --find-links {url}/download/wheels/{trusted} -r {url}/download/client.lock
/opt/trenza/bin/pip install --no-index "$@" || /opt/trenza/bin/pip install --only-binary :all: "$@"
mkdir -p /etc/trenza
umask 077
cat >{env_file} <<'SETTINGS'
{settings}SETTINGS
umask 022
curl -fsSL -o /etc/systemd/system/{unit} {url}/download/{unit}
systemctl daemon-reload
systemctl enable {unit}
systemctl restart {unit}
END"""


def settings_text(relay: Relay, token: str, env: Environment) -> str:
    """The file of settings (``TRENZA_RELAY_*``) with which ``trenza-relay --config`` is this relay."""
    anywhere = "[::]" if ":" in relay.host_name else "0.0.0.0"  # noqa: S104 - a relay serves the world
    stun = f"{anywhere}:{relay.stun_port}" if relay.stun_port > 0 else "off"
    values = {
        "CONTROL_URL": env.url,
        "TOKEN": token,
        "HOSTS": relay.host_name,
        "LISTEN": f"{anywhere}:{relay.derp_port}",
        "STUN": stun,
    }
    return "".join(f"TRENZA_RELAY_{name}={value}\n" for name, value in values.items())


def install_text(relay: Relay, token: str, env: Environment) -> str:
    """Commands for a Debian or Ubuntu host with systemd; running them again changes the settings."""
    context = script_context(env)
    trusted = f" --trusted-host {context['trusted_host']}" if context["trusted_host"] else ""
    return INSTALL.format(
        url=context["base_url"],
        trusted=trusted,
        env_file=ENV_FILE,
        unit=UNIT,
        settings=settings_text(relay, token, env),
    )
