#!/bin/sh
# Makes the Ritz data and trains every network of the deep conjugate direction method that the documentation
# speaks of, into directory $1.  About 8 GB of data and five core-hours; jobs that are done are skipped, a
# stopped one goes on.  A second argument, a pattern of the shell, picks names of networks.
set -eu
out=${1:?directory for data and models}
pick=${2:-*}
mkdir -p "$out/data" "$out/models"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

consolve() { "${PYTHON:-python}" -m consolve "$@"; }

data() { # names of sets: DIM-CELLS-DOMAIN-SEED OF THE DOMAIN; each with its validation set
    sets= validation=
    for set in "$@"; do
        dim=${set%%-*} domain=${set#*-*-} cells=${set#*-}
        cells=${cells%%-*} seed=${domain##*-} domain=${domain%-*}
        case $dim-$cells-$domain in 2-64-free*) vectors=1500 ;; 2-64*) vectors=3000 ;; *) vectors=4000 ;; esac
        ritz="consolve data ritz --dim $dim --cells $cells --domain $domain --domain-seed $seed --vectors $vectors"
        for part in "" -validation; do
            file="$out/data/$set$part.h5"
            few= number=0
            test -z "$part" || few="--samples 500" number=1
            resume=
            test -f "$file.part" && resume=--resume
            test -f "$file" || $ritz $few --seed $number --out "$file" $resume
        done
        sets="$sets --data $out/data/$set.h5"
        validation="$validation --validation $out/data/$set-validation.h5"
    done
    sets="$sets $validation"
}

train() { # name, sets (- for none), options
    name=$1 of=$2
    shift 2
    case $name in $pick) ;; *) return 0 ;; esac
    test -f "$out/models/$name.h5" && return 0
    sets=
    test "$of" = - || data $of
    resume=
    test -f "$out/models/$name.checkpoint.pt" && resume=--resume
    consolve train dcdm $sets "$@" $resume --out "$out/models/$name.h5"
}

# What ships.
muon="--optimiser muon --rate 1e-3"
train dcdm-2d 2-128-box-0 $muon --steps 8000
train dcdm-3d 3-32-box-0 $muon --batch 4 --steps 2500
train dcdm-image-2d - --loss energy --dim 2 --image $muon --steps 4000
train dcdm-image-3d - --loss energy --dim 3 --image $muon --batch 4 --steps 2500
train dcdm-deep-2d - --loss energy --dim 2 --network dcdm-deep --optimiser muon --rate 2e-3 --steps 8000
train dcdm-deep-3d - --loss energy --dim 3 --network dcdm-deep --optimiser muon --rate 2e-3 --batch 4 --steps 2500

# At 64^2: kinds of boundary, one network each and one for all.
surfaces="2-64-free-surface-1 2-64-free-surface-2 2-64-free-surface-3"
train box-64 2-64-box-0 $muon --steps 8000
train closed-64 2-64-closed-box-0 $muon --steps 4000
train surface-64 "$surfaces" $muon --steps 4000
train all-64 "2-64-box-0 2-64-closed-box-0 $surfaces" $muon --steps 8000
train all-image-64 "2-64-box-0 2-64-closed-box-0 $surfaces" $muon --steps 8000 --image

# The published budget in 3D: Adam at the rate of the released code, one epoch of its twenty thousand.
train adam-32 3-32-box-0 --optimiser adam --rate 1e-4 --steps 2000
