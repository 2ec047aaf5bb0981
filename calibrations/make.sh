#!/usr/bin/env bash
# Makes the calibrations of real GPUs anew, each with one command, from
#   PROFILES  layer profiles (github.com/casys-kaist/LLMServingSim at 5daddb2, in the layout that docs/calibrations.md names)
#   KERNELS   kernel tables (github.com/ai-dynamo/aiconfigurator at 095f58a, Parquet)
#
#   calibrations/make.sh PROFILES KERNELS [calibration ...]
#
# A model that does not fit a card is refused, with the arithmetic, and left out.
set -euo pipefail
PROFILES=$1 KERNELS=$2
shift 2
WANTED=("$@")
OUT=$(dirname "${BASH_SOURCE[0]}")

calibration() { # NAME IMPORT-ARGUMENTS...
  local name=$1 && shift
  if ((${#WANTED[@]})) && [[ ! " ${WANTED[*]} " == *" $name "* ]]; then return; fi
  llmsim calibrations import "$@" --out "$OUT/$name.json" >/dev/null 2>"$OUT/.log" && echo "$name" || {
    echo "$name left out: $(grep -v '^warning: note' "$OUT/.log" | tail -1)"
    rm -f "$OUT/$name.json"
  }
  rm -f "$OUT/.log"
}

named() { if [[ $2 == 1 ]]; then echo "$1"; else echo "$1-tp$2"; fi; }

layers() { # DEVICE MODEL TP PREFIX OPTIONS...
  local device=$1 model=$2 tp=$3 prefix=$4 && shift 4
  calibration "$device/$(named "$model" "$tp")" "$PROFILES/$prefix" --from layer-profile --device "$device" \
    --model "$model" --tp "$tp" "$@"
}

kernels() { # DEVICE MODEL TP OPTIONS...
  local device=$1 model=$2 tp=$3 && shift 3
  calibration "$device/$(named "$model" "$tp")" "$KERNELS" --from kernels --device "$device" --model "$model" --tp "$tp" "$@"
}

# 2,588 blocks: what the server of that profile printed.
layers rtx-4090 llama-3.1-8b 1 RTX4090_Llama-3.1-8B_tp1 --num-blocks 2588
REDUCE=(--all-reduce "$KERNELS/rtx_pro_6000_server_vllm0.19.0_custom_allreduce_perf.parquet")
CHECKED="vLLM 0.19, 300 ShareGPT requests (experiments/08_vllm_real_run.py): means of TTFT -0.3 %, TPOT +0.2 %, E2E +0.1 %"
layers rtx-pro-6000 llama-3.1-8b 1 RTXPRO6000_Llama-3.1-8B_tp1 --checked "$CHECKED"
layers rtx-pro-6000 llama-3.1-8b 2 RTXPRO6000_Llama-3.1-8B_tp2 "${REDUCE[@]}"
for tp in 1 2; do
  layers rtx-pro-6000 qwen3-32b $tp RTXPRO6000_Qwen3-32B_tp$tp "${REDUCE[@]}"
  for model in mistral-7b qwen3-8b; do
    kernels rtx-pro-6000 $model $tp --like "$PROFILES/RTXPRO6000_Llama-3.1-8B_tp1"
  done
done
for model in llama-3.1-8b mistral-7b qwen3-8b qwen3-32b llama-3.1-70b; do
  kernels rtx-pro-6000 $model 4 --like "$PROFILES/RTXPRO6000_Llama-3.1-8B_tp1"
done
kernels rtx-pro-6000 llama-3.1-70b 8 --like "$PROFILES/RTXPRO6000_Llama-3.1-8B_tp1"

for device in h200 h100 a100 l40s; do
  like=()
  # FlashAttention 2 too: the nearer relative of the two cards with a layer profile
  if [[ $device == a100 ]]; then like=(--like "$PROFILES/RTXPRO6000_Llama-3.1-8B_tp1"); fi
  if [[ $device == l40s ]]; then like=(--like "$PROFILES/RTX4090_Llama-3.1-8B_tp1"); fi
  for tp in 1 2 4; do
    for model in llama-3.1-8b mistral-7b qwen3-8b qwen3-32b; do kernels $device $model $tp "${like[@]}"; done
  done
  for tp in 4 8; do kernels $device llama-3.1-70b $tp "${like[@]}"; done
done
