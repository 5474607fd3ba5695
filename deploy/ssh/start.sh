#!/usr/bin/env bash
# start.sh [OPTION OF dask ssh ...]: a scheduler on the first host of hosts.txt, a worker on each
# host. Ctrl-C ends them all. For what it can be told by the environment see README.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
file=${ALTRELU_HOSTS:-$here/hosts.txt}
python=${ALTRELU_PYTHON:-$(command -v python3)} # the same path on all hosts
read -ra ssh <<<"${ALTRELU_SSH:-ssh}"

fail() {
    echo "start.sh: $*" >&2
    exit 1
}

mapfile -t hosts < <(sed 's/#.*//' "$file" | grep -oE '[^[:space:]]+')
((${#hosts[@]})) || fail "$file names no host"

# `dask ssh` takes any key for a host's: so ssh asks each first whether it is who it was, and
# whether it has the package.
ssh+=(-o BatchMode=yes -o ConnectTimeout=10)
given=("$@")
for ((i = 0; i < $#; i++)); do
    option=${given[i]%%=*}
    case $option in
        --ssh-port) short=-p ;;
        --ssh-username) short=-l ;;
        --ssh-private-key) short=-i ;;
        *) continue ;;
    esac
    value=${given[i + 1]:-}
    [[ ${given[i]} != *=* ]] || value=${given[i]#*=}
    [[ $value ]] || fail "$option wants a value"
    ssh+=("$short" "$value")
done
python3 -c 'import paramiko' 2>/dev/null || fail "paramiko is not installed here: pip install paramiko"
asks='import altrelu_dist; print(altrelu_dist.__version__)'
here_is=$(python3 -c "$asks") || fail "altrelu-dist is not installed here"
while read -r host; do
    there=$("${ssh[@]}" "$host" "$python -c '$asks'" </dev/null) ||
        fail "$host: cannot be reached by ssh, or its $python has no altrelu-dist"
    [[ $there == "$here_is" ]] || fail "$host: has altrelu-dist $there, here is $here_is"
done < <(printf '%s\n' "${hosts[@]}" | sort -u)

[[ $(python3 -c 'import dask, distributed
print(dask.config.get("distributed.comm.default-scheme"))') == tls ]] ||
    echo "start.sh: no TLS: whoever reaches ${hosts[0]} can run code there (README.md)" >&2

exec python3 -m dask ssh --remote-python "$python" "$@" "${hosts[@]}"
