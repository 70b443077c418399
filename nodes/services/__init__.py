"""What can be done to nodes and their keys. Keyword-only; each owns its transaction and publishes its change.

- :mod:`nodes.services.registration`: the one door of the control protocol, ``answer_registration``
- :mod:`nodes.services.enrolment`: making a node, or giving it a new key
- :mod:`nodes.services.logins`: interactive logins (AuthURL, confirmation)
- :mod:`nodes.services.lifecycle`: approve, reject, rename, expire, tag, delete, log out, rotate, sweep
- :mod:`nodes.services.volatile`: endpoints, Hostinfo, home relay
- :mod:`nodes.services.clones`: devices whose keys two machines use
- :mod:`nodes.services.paths`: by which paths devices reach their peers
- :mod:`nodes.services.presence`: which worker holds a node's stream
- :mod:`nodes.services.rotation`: new node keys by schedule, and when a person asks
- :mod:`nodes.services.asking`: asking a connected client something (c2n)
- :mod:`nodes.services.authkeys`: pre-auth keys
- :mod:`nodes.services.routes`: offered prefixes and their approval
"""
