#!/bin/bash
# Measure everything, and put the results into benchmarks/results: about an hour on two quiet
# cores. Takes the folder for the JSON files of the programs, build/benchmarks by default. PYTHON
# chooses the interpreter, in which nnet, PyTorch 2.13, skorch, onnxruntime, OpenVINO, onnx, JAX,
# SciPy, OpenCV, mlxtend and matplotlib are installed. BEFORE, if set, is an interpreter with another
# version of nnet, which takes its turns too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
results=$(mkdir -p "${1:-$here/../build/benchmarks}" && cd "${1:-$here/../build/benchmarks}" && pwd)
python=${PYTHON:-python}
cd "$results"  # outside the clone, or Python would find its sources instead of what is installed
uptime

# bench PROGRAM NAME OPTION...: NAME.json and NAME.txt
bench() {
    echo "== $2 (${SECONDS}s)"
    "$python" "$here/bench_$1.py" --json "$2.json" "${@:3}" > "$2.txt" 2> "$2.log" ||
        { tail "$2.log" >&2; exit 1; }
}

peers="torch torch-channels-last"
before=${BEFORE:+--before "$BEFORE"}
bench conv conv --compare loops $peers --budget 0.15 $before
bench pool pool --compare loops copy pairs $peers --budget 0.1 $before
bench filters filters --compare scipy opencv --budget 0.1 $before
bench train train --compare $peers --budget 0.1 $before
bench predict predict --compare $peers onnxruntime openvino --budget 0.1 $before
bench scaling scaling --budget 0.1
bench memory memory
bench optimizers optimizers --rounds 3 --budget 0.1
bench estimators estimators
bench defaults defaults
bench accuracy accuracy
bench conv conv-float64 --dtype float64 --compare $peers --budget 0.05
bench pool pool-float64 --dtype float64 --compare $peers --budget 0.05
files=(conv pool filters train predict scaling memory optimizers estimators defaults accuracy conv-float64 pool-float64)

for target in baseline avx2; do
    bench conv "conv-$target" --target $target --compare $peers --budget 0.05
    bench pool "pool-$target" --target $target --compare $peers --budget 0.05
    bench train "train-$target" --target $target --compare $peers --budget 0.05 --only "batch 64"
    files+=("conv-$target" "pool-$target" "train-$target")
done

if command -v clang > /dev/null; then  # nnet alone, built by clang, against the build above
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    git -C "$here/.." archive --prefix=nnet/ HEAD | tar -x -C "$work"
    CC=clang "$python" -m pip install --quiet --no-deps --target "$work/clang" "$work/nnet"
    export PYTHONPATH="$work/clang${PYTHONPATH:+:$PYTHONPATH}"
    bench conv conv-clang --compare --budget 0.15
    bench pool pool-clang --compare --budget 0.1
    files+=(conv-clang pool-clang)
fi

"$python" "$here/report.py" "${files[@]/%/.json}" --results "$here/results"
echo "== done (${SECONDS}s)"
