#!/bin/sh
# Makes the data sets and trains every wave surrogate that the documentation speaks of, into directory $1.
# About 2 GB of data and two core-hours of training; jobs that are done are skipped.
set -eu
out=${1:?directory for data and models}
mkdir -p "$out/data" "$out/models"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

consolve() { "${PYTHON:-python}" -m consolve "$@"; }

data() { # file, set, split, runs
    test -f "$out/data/$1.h5" || consolve data wave --set "$2" --split "$3" --runs "$4" --seed 0 --out "$out/data/$1.h5" --resume
}
data prop-train propagator train 1000
data prop-validation propagator validation 60
data prop-test propagator test 100
data prop-unseen propagator unseen 60
data zone-train zone train 1500
data zone-validation zone validation 100
data zone-test zone test 200
data zone-unseen zone unseen 60

train() { # name, options
    name=$1
    shift
    test -f "$out/models/$name.h5" && return
    resume=
    test -f "$out/models/$name.checkpoint.pt" && resume=--resume
    consolve train wave "$@" $resume --amp --out "$out/models/$name.h5"
}
propagator="--network propagator --data $out/data/prop-train.h5 --validation $out/data/prop-validation.h5"
generator="--network generator --data $out/data/zone-train.h5 --validation $out/data/zone-validation.h5"
for seed in 0 1 2; do
    train "propagator-dense-$seed" $propagator --seed $seed
    train "propagator-$seed" $propagator --compression 4 --seed $seed
    train "generator-dense-$seed" $generator --steps 3000 --seed $seed
    train "generator-$seed" $generator --steps 3000 --compression 8 --seed $seed
done
# Error against rank: shorter runs of the same length each.
train "curve-1" $propagator --steps 2500
for compression in 2 4 8 16; do
    train "curve-$compression" $propagator --steps 2500 --compression $compression
done
