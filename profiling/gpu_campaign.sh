#!/usr/bin/env bash
# The measuring campaign on a GPU: kernels, profiles, fits, live against simulated. profiling/README.md explains it.
#
#   profiling/gpu_campaign.sh                 # all steps, one after the other
#   profiling/gpu_campaign.sh setup profile-llama-3-8b
#   DRY=1 profiling/gpu_campaign.sh           # every step on the CPU with the tiny model: proves the script
#
# Every step can be run alone and again: what is measured is kept, what was cut off goes on. No step takes more than
# STEP_LIMIT_S seconds, and no network is needed. No setting of the device is changed.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python3}
case $PYTHON in */*) PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON") ;; esac  # the script changes folder
DEVICE_NAME=${DEVICE_NAME:-h200}        # as in profiling/measurements/<device>; must be part of the GPU's name
DEVICE=${DEVICE:-cuda}
BACKEND=${BACKEND:-flashinfer}
DTYPE=${DTYPE:-bfloat16}
MODELS=${MODELS:-llama-3-8b mistral-7b}
VALIDATE_MODEL=${VALIDATE_MODEL:-llama-3-8b}
SCHEDULERS=${SCHEDULERS:-sarathi slai vllm_v1 rad}
LOADS=${LOADS:-0.5,0.8,0.95}
TRACE=${TRACE:-sharegpt4}
PROFILE_MINUTES=${PROFILE_MINUTES:-4.5}
REPEATS=${REPEATS:-9}
VALIDATE_MINUTES=${VALIDATE_MINUTES:-2}
STEP_LIMIT_S=${STEP_LIMIT_S:-570}
STATE=$ROOT/runs/gpu-campaign           # ignored by git: unpacked wheels, compiled kernels
RESULTS=${OUT:+runs/gpu-campaign/results}  # under the checkout: results go to their places there ...
RESULTS=${RESULTS:-.}                      # ... unless OUT is set, see pack

declare -A PLAN=([llama-3-8b]=llama-8b-h200 [mistral-7b]=mistral-7b-h200)
CHECK=(--model "$VALIDATE_MODEL")
WORKLOAD=(--trace "$TRACE" --on-long drop)

if [[ -n ${DRY:-} ]]; then
  DEVICE_NAME=dry-run DEVICE=cpu BACKEND=sdpa DTYPE=float32 MODELS=tiny VALIDATE_MODEL=tiny
  PROFILE_MINUTES=0.5 VALIDATE_MINUTES=0.4 REPEATS=3
  STATE=$ROOT/runs/gpu-campaign-dry RESULTS=runs/gpu-campaign-dry/results
  PLAN=([tiny]=tiny-cpu)
  CHECK=(--model tiny)
  WORKLOAD=()                           # the default: lengths that a CPU can serve in seconds
fi

# Paths are relative to the checkout, as they stand in manifests.
measurements() { echo "$RESULTS/profiling/measurements/$DEVICE_NAME/$1" | sed 's|^\./||'; }
calibration() { echo "$RESULTS/calibrations/$DEVICE_NAME/$1.json" | sed 's|^\./||'; }
llmsim() { timeout --signal=INT "$STEP_LIMIT_S" "$PYTHON" -m llmsim "$@"; }

steps() {
  echo setup
  for model in $MODELS; do echo "profile-$model"; done
  echo fit
  for scheduler in $SCHEDULERS; do echo "validate-$scheduler"; done
}

# --- environment -----------------------------------------------------------------------------------------------------

environment() {
  local site=$STATE/site
  if compgen -G "$ROOT/profiling/wheels/*.whl" >/dev/null && [[ -z ${DRY:-} ]]; then
    # By their names, not their dates: unpacked anew, FlashInfer's sources would look newer than what was compiled.
    if [[ $(ls "$ROOT/profiling/wheels") != $(cat "$site/.wheels" 2>/dev/null) ]]; then
      echo "unpacking profiling/wheels into $site"
      rm -rf "$site"
      "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check \
        --target "$site" "$ROOT"/profiling/wheels/*.whl
      ls "$ROOT/profiling/wheels" >"$site/.wheels"
    fi
    export PYTHONPATH=$ROOT:$site${PYTHONPATH:+:$PYTHONPATH}
  else
    export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
  fi
  export PYTHONUNBUFFERED=1
  [[ $DEVICE == cuda* ]] || return 0
  export FLASHINFER_WORKSPACE_BASE=${FLASHINFER_WORKSPACE_BASE:-$STATE/kernels}  # compiled once, kept for later steps
  export MAX_JOBS=${MAX_JOBS:-$(nproc)}
  PATH=$(dirname "$(command -v "$PYTHON")"):$PATH                                # ninja may lie beside python
  toolkit
}

# FlashInfer takes the folder above nvcc's for the toolkit, which is wrong where nvcc on the path is a script or link,
# and links with -lcudart -lcuda, which need libcudart.so and libcuda.so under just these names.
toolkit() {
  local folder library found
  if [[ -z ${CUDA_HOME:-} ]]; then
    for folder in /usr/local/cuda "$(dirname "$(dirname "$(readlink -f "$(command -v nvcc || echo /)")")")"; do
      if [[ -e $folder/include/cuda_runtime.h && -x $folder/bin/nvcc ]]; then
        export CUDA_HOME=$folder
        break
      fi
    done
  fi
  mkdir -p "$STATE/lib"
  for library in libcuda.so libcudart.so; do
    found=$( { ls "${CUDA_HOME:-/nowhere}"/lib64/$library* "${CUDA_HOME:-/nowhere}"/lib/$library* \
      /usr/local/nvidia/lib64/$library* 2>/dev/null; ldconfig -p | sed -n "s|.*$library.* => ||p"; } | sed -n 1p || true)
    [[ -z $found ]] || ln -sf "$found" "$STATE/lib/$library"
  done
  export LIBRARY_PATH=$STATE/lib${LIBRARY_PATH:+:$LIBRARY_PATH}
}

# --- steps -----------------------------------------------------------------------------------------------------------

setup() {
  if [[ $DEVICE == cuda* ]]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,persistence_mode,clocks.max.sm --format=csv
    if ! nvidia-smi --query-gpu=name --format=csv,noheader | grep -qi -- "${DEVICE_NAME//-/.*}"; then
      echo "DEVICE_NAME is $DEVICE_NAME, which is no part of that GPU's name; set DEVICE_NAME, and PLAN if need be" >&2
      return 1
    fi
    echo "toolkit ${CUDA_HOME:-not found}; $(nvcc --version | tail -n 1); ninja $(ninja --version)"
  fi
  timeout --signal=INT "$STEP_LIMIT_S" "$PYTHON" "$ROOT/profiling/check_backend.py" \
    --device "$DEVICE" --backend "$BACKEND" --dtype "$DTYPE" "${CHECK[@]}"
}

profile() {
  llmsim profile --model "$1" --device "$DEVICE" --device-name "$DEVICE_NAME" --backend "$BACKEND" --dtype "$DTYPE" \
    --minutes "$PROFILE_MINUTES" --repeats "$REPEATS" ${PLAN[$1]:+--plan "${PLAN[$1]}"} \
    --out "$(measurements "$1")" --calibration-out "$(calibration "$1")"
}

fit() {
  for model in $MODELS; do
    llmsim profile --fit-only "$(measurements "$model")" --device-name "$DEVICE_NAME" \
      --calibration-out "$(calibration "$model")"
  done
}

validate() {
  llmsim validate --calibration "$(calibration "$VALIDATE_MODEL")" --scheduler "$1" --loads "$LOADS" "${WORKLOAD[@]}" \
    --minutes "$VALIDATE_MINUTES" --out "$RESULTS/runs/validate/$1"
}

run_step() {
  case $1 in
    setup) setup ;;
    profile-*) profile "${1#profile-}" ;;
    fit) fit ;;
    validate-*) validate "${1#validate-}" ;;
  esac
}

# --- what comes back -------------------------------------------------------------------------------------------------

# A lent machine may hand back only what lies under $OUT, and may put the checkout back as it was before each call. So
# with OUT set, results grow in $STATE, which git ignores, and are packed into $OUT: unpack them in the checkout.
pack() {
  [[ -n ${OUT:-} ]] || return 0
  local found
  mapfile -t found < <(cd "$RESULTS" && find profiling calibrations runs -type f 2>/dev/null | sort)
  printf '%s\n' "${found[@]}" | { grep -v '\.html$' || true; } | tar -C "$RESULTS" -czf "$OUT/data.tar.gz" -T -
  printf '%s\n' "${found[@]}" | { grep '\.html$' || true; } | tar -C "$RESULTS" -czf "$OUT/reports.tar.gz" -T -
}

# What earlier calls brought home counts as done on a fresh machine, too.
seed() {
  local folder
  [[ -n ${OUT:-} && -z ${DRY:-} ]] || return 0
  for folder in "profiling/measurements/$DEVICE_NAME" "calibrations/$DEVICE_NAME"; do
    if [[ -e $folder ]]; then
      mkdir -p "$RESULTS/$folder"
      tar -C "$folder" -cf - . | tar -C "$RESULTS/$folder" --skip-old-files -xf -
    fi
  done
}

main() {
  local wanted=("$@") step began
  (( ${#wanted[@]} )) || mapfile -t wanted < <(steps)
  for step in "${wanted[@]}"; do
    if ! steps | grep -qx -- "$step"; then
      echo "there is no step '$step'; the steps are: $(steps | tr '\n' ' ')" >&2
      return 2
    fi
  done
  cd "$ROOT"
  mkdir -p "$STATE" "$RESULTS"
  environment
  seed
  trap pack EXIT
  for step in "${wanted[@]}"; do
    echo "== $step ($(date -u +%H:%M:%S))"
    began=$SECONDS
    run_step "$step"
    pack
    echo "== $step took $((SECONDS - began)) s"
  done
}

main "$@"
