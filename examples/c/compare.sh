#!/bin/sh
# compare.sh {print|check} PROGRAM...: each program with PETSc's own preconditioners and with consolve's.
#
# Environment: OUT (where the programs are), RUN (what starts them), PLUGIN (the library for -dll_prepend).
# With "check" every solve has to converge with exit code 0 and nothing on stderr, to the error of the first one
# within 1%, and consolve's in less than half of the iterations of any other.
set -u
mode=$1
shift
[ -n "${PLUGIN:-}" ] || { echo "compare.sh: PLUGIN is empty: give the path of the plugin" >&2; exit 2; }
tolerance="-ksp_rtol 1e-9 -ksp_norm_type unpreconditioned"
several=$(echo "${RUN:-}" | grep -c .)
stderr=$(mktemp)
trap 'rm -f "$stderr"' EXIT
failures=0

fail() {
    echo "  FAILED: $*"
    failures=$((failures + 1))
}

# solve NAME OPTIONS...: sets iterations and error
solve() {
    name=$1
    shift
    # shellcheck disable=SC2086
    output=$(${RUN:-} "$OUT/$name" $tolerance "$@" 2>"$stderr")
    code=$?
    line=$(printf '%s\n' "$output" | grep "^$name: ")
    echo "${line:-$name: no result}   ($*)" | sed "s|$PLUGIN|PLUGIN|"
    iterations=$(printf '%s\n' "$line" | sed -n 's/.*iterations \([0-9]*\),.*/\1/p')
    reason=$(printf '%s\n' "$line" | sed -n 's/.*reason \(-*[0-9]*\),.*/\1/p')
    error=$(printf '%s\n' "$line" | sed -n 's/.*error \([0-9.eE+-]*\)$/\1/p')
    if [ "$code" -ne 0 ] || [ -z "$error" ] || [ "${reason:-0}" -le 0 ] || [ -s "$stderr" ]; then
        fail "exit code $code, reason ${reason:-none}; $(grep -v '^$' "$stderr" | head -n 3)"
        return 1
    fi
}

for program in "$@"; do
    plain="cg+none cg+jacobi"
    learned="cg+cnn dcd+cnn"
    [ "$several" -gt 0 ] || plain="$plain cg+icc"
    extra= learned_extra=
    case $program in
    dirichlet_rows) # not symmetric: plain cg needs a guess with the boundary values, and icc cannot factor it
        extra=-boundary_guess
        plain="cg+none cg+jacobi"
        learned="$learned fgmres+cnn" ;;
    poisson) # no DMDA
        learned_extra="-pc_cnn_grid 90,70" ;;
    esac
    first_error= fewest=
    for pair in $plain $learned; do
        options="-ksp_type ${pair%+*} -pc_type ${pair#*+}"
        case $pair in
        *cnn) options="-dll_prepend $PLUGIN $options $learned_extra" ;;
        *) options="$options $extra" ;;
        esac
        # shellcheck disable=SC2086
        solve "$program" $options || continue
        case $pair in
        *cnn)
            [ -z "$fewest" ] || [ $((2 * iterations)) -lt "$fewest" ] ||
                fail "$iterations iterations, the others need $fewest" ;;
        *)
            if [ -z "$fewest" ] || [ "$iterations" -lt "$fewest" ]; then fewest=$iterations; fi ;;
        esac
        first_error=${first_error:-$error}
        awk -v a="$error" -v b="$first_error" 'BEGIN { exit !(a < 1.01 * b + 1e-6 && b < 1.01 * a + 1e-6) }' ||
            fail "error $error, with the first solver $first_error"
    done
done
if [ "$mode" = check ]; then
    [ "$failures" -eq 0 ] || { echo "$failures comparisons failed"; exit 1; }
    echo "all comparisons hold"
fi
