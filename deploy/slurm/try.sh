#!/bin/bash
# Tries train.sbatch on a Slurm of its own: a controller and two hosts on this machine, in a temporary folder. The real
# trainer trains a small experiment: to its end, warned of the time limit, with a process killed, cancelled.
#
#   deploy/slurm/try.sh [RECORD.json]      about three minutes; writes what was seen
#
# Needs root, Debian's slurmctld, slurmd, slurm-client, munge and jq, and of this workspace: `cargo xtask setup --torch full`
# and a built deepsim-train (TRAIN, target/release/deepsim-train if unset). Whatever it starts, it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
record=${1:-}
export TRAIN=${TRAIN:-target/release/deepsim-train} PROCESSES=1
for need in slurmctld slurmd sbatch munged jq "$TRAIN"; do
    command -v "$need" >/dev/null || { echo "missing: $need" >&2; exit 2; }
done

box=$(mktemp -d)
host=$(hostname -s)
slurm() { # a daemon, ended at the end
    "$@" >>"$box/daemons.txt" 2>&1 &
    daemons+=($!)
}
daemons=()
# shellcheck disable=SC2317 # called by the trap
clean() {
    [ -z "${job:-}" ] || scancel --quiet "$job" 2>/dev/null || true
    sleep 1
    kill "${daemons[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$box"
}
trap clean EXIT

# Signatures of the messages: a munged of its own, with a key and a socket of its own.
dd if=/dev/urandom of="$box/key" bs=1024 count=1 status=none
chmod 700 "$box" && chmod 600 "$box/key"
slurm munged --foreground --force --key-file="$box/key" --socket="$box/munge.socket" --log-file="$box/munge.log" \
    --pid-file="$box/munge.pid" --seed-file="$box/munge.seed"

export SLURM_CONF=$box/slurm.conf
mkdir "$box/state" "$box/n1" "$box/n2"
cat >"$SLURM_CONF" <<CONF
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16917
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$box/munge.socket
StateSaveLocation=$box/state
SlurmdSpoolDir=$box/%n
SlurmctldPidFile=$box/slurmctld.pid
SlurmdPidFile=$box/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17101-17102] CPUs=8 RealMemory=1000
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
CONF
sleep 1
slurm slurmctld -D -c -L "$box/slurmctld.log"
slurm slurmd -D -N n1 -L "$box/n1.log"
slurm slurmd -D -N n2 -L "$box/n2.log"

# The hosts have no names of their own: torchrun's agents meet at this one.
mkdir "$box/bin"
# shellcheck disable=SC2016 # for the script that is written
printf '#!/bin/sh\n[ "$1 $2" = "show hostnames" ] && echo 127.0.0.1 || exec %s "$@"\n' "$(command -v scontrol)" \
    >"$box/bin/scontrol"
chmod +x "$box/bin/scontrol"
export PATH=$box/bin:$PATH
for _ in $(seq 30); do
    [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && break
    sleep 1
done
# Images to train on, where the sample photos are not prepared.
images=data/debian
if ! [ -d $images/train ]; then
    images=$box/images
    PYTHONPATH=third_party/py python3 - "$images" <<'PY'
import pathlib, random, sys
from PIL import Image
for part in ("train", "test"):
    folder = pathlib.Path(sys.argv[1]) / part
    folder.mkdir(parents=True)
    for i in range(12):
        small = Image.frombytes("RGB", (8, 8), random.randbytes(192))
        small.resize((96, 96)).save(folder / f"{i}.png")
PY
fi
small=(experiments/quickstart.toml --quiet)
for set in data.train=$images/train data.test=$images/test data.crop=64 generator.width=0.05 train.batch_size=4 \
    train.threads=1 train.eval_images=2 train.checkpoint_every=1000000 train.log_every=1 \
    encoder.weights=random:1 comparator.weights=random:1; do
    small+=(--set "$set")
done
submit() { # RUN ARGUMENTS…
    job=$(sbatch --parsable --cpus-per-task=1 --output="$box/$1.log" deploy/slurm/train.sbatch "${small[@]}" \
        --out "$box/runs/$1" "${@:2}")
}
state() { scontrol show job "$job" | grep -o "$1=[^ ]*" | cut -d= -f2; }
steps() {
    local count
    count=$(grep -c updates.g "$box/runs/$1/metrics.jsonl" 2>/dev/null) || true
    echo "${count:-0}"
}
ranks() { pgrep --full "^$TRAIN .*--out $box/runs/$1" | sort; }
saved() { # the step of the newest checkpoint
    local newest
    newest=$(find "$box/runs/$1/checkpoints" -name 'step-*' 2>/dev/null | sort | tail -n 1)
    newest=${newest##*step-}
    echo $((10#${newest:-0}))
}
until_() { # WHAT COMMAND…
    for _ in $(seq 90); do
        if "${@:2}"; then return; fi
        sleep 1
    done
    echo "not seen in time: $1" >&2
    tail -n 20 "$box"/*.log >&2
    exit 1
}
is() { [ "$(state JobState)" = "$1" ]; }
more() { [ "$(steps "$1")" -gt "$2" ]; }
seen=()
saw() {
    echo "seen: $1"
    seen+=("$1")
}

sbatch --test-only deploy/slurm/train.sbatch experiments/fc6.toml
submit whole --steps 12
until_ "the end" is COMPLETED
[ "$(saved whole)" = 12 ]
saw "a run to its end, by two processes on two hosts: state COMPLETED"

submit long --steps 1000000
until_ "steps" more long 5
before=$(ranks long)
kill -KILL "$(head -n 1 <<<"$before")"
others() { # two processes, none of which was there before
    local now
    now=$(ranks long) || true
    [ "$(wc -l <<<"$now")" = 2 ] && [ -z "$(comm -12 <(echo "$before") <(echo "$now"))" ]
}
until_ "other processes" others
until_ "their steps" more long 5
[ "$(state Restarts)" = 0 ]
saw "a process killed: torchrun begins all again within the job"

# What Slurm sends before the time limit.
scancel --batch --signal=USR1 "$job"
until_ "the queue" is PENDING
first=$(saved long)
[ "$first" -gt 0 ]
saw "warned of the time limit: a checkpoint, and back in the queue"
scontrol update JobId="$job" StartTime=now
until_ "the second start" is RUNNING
until_ "steps" more long "$((first + 5))"
[ "$(state Restarts)" = 1 ]
saw "started again by Slurm: goes on from that checkpoint"

scancel "$job"
until_ "the end" is CANCELLED
[ "$(saved long)" -gt "$first" ]
saw "cancelled: a checkpoint, and state CANCELLED"

if [ -n "$record" ]; then
    printf '%s\n' "${seen[@]}" | jq -R . | jq -s --arg slurm "$(sbatch --version)" \
        --arg file "$(sha256sum deploy/slurm/train.sbatch | cut -d' ' -f1)" \
        '{name: "jobs-slurm", command: "deploy/slurm/try.sh docs/results/jobs-slurm.json", slurm: $slurm, sha256: {"deploy/slurm/train.sbatch": $file}, seen: .}' >"$record"
fi
