#!/bin/bash
# An independent client: socat carries the bytes, jq looks at the replies. Usage: qmp_session.sh SOCKET
set -euo pipefail
printf '%s\n' '{"execute": "qmp_capabilities"}' '{"execute": "query-status", "id": "status"}' \
  '{"execute": "query-commands", "id": "commands"}' '{"execute": "nope", "id": "nope"}' |
  socat -t 20 - "UNIX-CONNECT:$1" |
  jq -e -s '
    (.[0].QMP.version.package | startswith("gyre ")) and
    (map(select(.id == "status"))[0].return.status == "prelaunch") and
    (map(select(.id == "commands"))[0].return | map(.name) | index("query-status") != null) and
    (map(select(.id == "nope"))[0].error.class == "CommandNotFound")'
