"""The coarse operator and the transfers: series resistances of ports, and fluxes that are reconstructed.

A port p of an unknown I is the bundle of fine edges from the nodes of I to those of another unknown J, or
to Dirichlet values.  G_p is the sum of their coefficients and f_p the distribution of a unit current over
them.  Within I, u = Q f_p, Q the pseudo-inverse of the Laplacian of its nodes, is the potential of a current
that enters at p and leaves everywhere; M = F^T Q F holds its means over the ports.  Opposite to p is the port
q of the lowest M_pq, the nearest of several.  With p' the same port seen from J and P the number of ports ::

    r_p  = (M_pp + M_qq - 2 M_pq) / 2, q opposite          half the resistance from p to q
    g    = 1 / (r_p + 1 / G_p + r_p')                      resistances in series
    x_i += X_I + sum_p W_ip (X_J - X_I)                    X_J = 0 for Dirichlet values
    W_ip = g ((Q f_p)_i - sum_q M_qp / P + r_p / P)        on the mean over the ports, potentials fit

Constants are kept, and R = P^T.  In one dimension, and on uniform grids, g is what discretisation on the
coarse grid gives; through a hole in a wall, it is the hole's.  An unknown without internal edges, or of
several pieces, has r = 0 and W = 0.

Where coefficients jump, g is raised to the bound of ``energy_bounds`` over ``overshoot`` at last, so that no
unknown makes the coarse correction overshoot by more.

Kernels work on unknowns first <= u < end.
"""

import numpy as np
from numba import njit

from consolve.base.jit import STRICT
from consolve.learned.multilevel.graph.finest_kernels import INNER
from consolve.learned.multilevel.graph.splitting_kernels import NONE

SINGULAR = 1e-13
"""A pivot below this share of its diagonal: the nodes are not connected."""
ALIKE = 1e-6
"""Ports whose M_pq differ by less than this share of M_pp are equally far."""


@njit(**STRICT)
def count_ports(
    pointer, neighbour, fixed, child, child_begin, size, aggregate, most, ports, drained, first, end
):
    """Neighbours of each unknown, and whether it has a Dirichlet part."""
    seen = np.empty(most, np.int64)
    for u in range(first, end):
        n = 0
        drain = False
        for q in range(child_begin[u], child_begin[u] + size[u]):
            node = child[q]
            drain = drain or fixed[node] > 0
            for e in range(pointer[node], pointer[node + 1]):
                J = aggregate[neighbour[e]]
                if J != u and J != NONE:
                    known = False
                    for p in range(n):
                        if seen[p] == J:
                            known = True
                            break
                    if not known:
                        seen[n] = J
                        n += 1
        ports[u] = n
        drained[u] = drain


@njit(**STRICT)
def _factor(a, m):
    """a = L D L^T in place, without its last row and column; False if it is singular."""
    for p in range(m - 1):
        d = a[p, p]
        for k in range(p):
            d -= a[p, k] * a[p, k] * a[k, k]
        if not d > SINGULAR * a[p, p]:
            return False
        a[p, p] = d
        for i in range(p + 1, m - 1):
            s = a[i, p]
            for k in range(p):
                s -= a[i, k] * a[p, k] * a[k, k]
            a[i, p] = s / d
    return True


@njit(**STRICT)
def _potential(a, m, f, u):
    """u = Q f by the factors of ``_factor``."""
    mean = 0.0
    for i in range(m):
        mean += f[i] / m
    for i in range(m - 1):
        s = f[i] - mean
        for k in range(i):
            s -= a[i, k] * u[k]
        u[i] = s
    for i in range(m - 1):
        u[i] /= a[i, i]
    u[m - 1] = 0
    mean = 0.0
    for i in range(m - 2, -1, -1):
        s = u[i]
        for k in range(i + 1, m - 1):
            s -= a[k, i] * u[k]
        u[i] = s
        mean += s / m
    for i in range(m):
        u[i] -= mean


@njit(**STRICT)
def _to_opposite(M, p, ports):
    """r_p."""
    lowest = np.inf
    for q in range(ports):
        if q != p:
            lowest = min(lowest, M[p, q])
    distance = np.inf
    for q in range(ports):
        if q != p and M[p, q] <= lowest + ALIKE * abs(M[p, p]):  # which rounding may make negative
            distance = min(distance, M[p, p] + M[q, q] - 2 * M[p, q])
    return 0.5 * max(distance, 0.0) if ports > 1 else 0.0


@njit(**STRICT)
def _equal(a, other_a, f, other_f, m, ports):
    for i in range(m):
        for k in range(m):
            if a[i, k] != other_a[i, k]:
                return False
    for p in range(ports):
        for i in range(m):
            if f[p, i] != other_f[p, i]:
                return False
    return True


@njit(**STRICT)
def _copy(source, rows, columns, target):
    """The first rows and columns; as slices, Numba compiles the words of an error beside them."""
    for i in range(rows):
        for k in range(columns):
            target[i, k] = source[i, k]


@njit(**STRICT)
def _solve(a, m, f, G, ports, unit, potential, M, r):
    """W / g and r of all ports of an unknown, from its Laplacian (overwritten) and the edges of each port."""
    solvable = m > 1 and _factor(a, m)
    if not solvable:
        r[:ports] = 0.0
        potential[:ports, :m] = 0.0
        return
    for p in range(ports):
        for i in range(m):
            unit[p, i] = f[p, i] / G[p]
        _potential(a, m, unit[p], potential[p])
    for p in range(ports):
        for q in range(ports):
            s = 0.0
            for i in range(m):
                s += unit[p, i] * potential[q, i]
            M[p, q] = s
    for p in range(ports):
        r[p] = _to_opposite(M, p, ports)
        shift = r[p] / ports
        for q in range(ports):
            shift -= M[q, p] / ports
        for i in range(m):
            potential[p, i] += shift


@njit(**STRICT)
def solve_ports(
    pointer, neighbour, coefficient, direction, fixed, child, child_begin, size, aggregate, place, home,
    largest, most, port_begin, drained, weight_begin, port_neighbour, port_direction, total, resistance,
    drain_total,
    drain_resistance, weight, first, end,
):  # fmt: skip
    """Neighbour, direction, G_p and r_p of each port, the same of Dirichlet parts, and W / g of each node.

    ``weight[weight_begin[u] + p * m + i]`` is for node i of m and port p of u; a Dirichlet part is the last
    port.  Unknowns like the one before are not solved for again.
    """
    a, factors = np.empty((largest, largest)), np.empty((largest, largest))
    f, potential = np.zeros((most + 1, largest)), np.zeros((most + 1, largest))
    unit, known, known_a = np.zeros((most + 1, largest)), np.zeros((most + 1, largest)), np.zeros_like(a)
    G, r, M = np.empty(most + 1), np.empty(most + 1), np.empty((most + 1, most + 1))
    known_m, known_ports = 0, 0
    for u in range(first, end):
        m, begin, n = size[u], child_begin[u], port_begin[u + 1] - port_begin[u]
        ports = n + 1 if drained[u] else n
        first_port, found = port_begin[u], 0
        for p in range(ports):
            G[p] = 0.0
            for i in range(m):
                f[p, i] = 0.0
        for i in range(m):
            for k in range(m):
                a[i, k] = 0.0
        for i in range(m):
            node = child[begin + i]
            if drained[u]:
                f[n, i] = fixed[node]
                G[n] += fixed[node]
            for e in range(pointer[node], pointer[node + 1]):
                other, c = neighbour[e], coefficient[e]
                J = aggregate[other]
                if J == u:
                    a[i, i] += c
                    a[i, place[other]] -= c
                elif J != NONE:
                    p = 0
                    while p < found and port_neighbour[first_port + p] != J:
                        p += 1
                    if p == found:
                        port_neighbour[first_port + p] = J
                        port_direction[first_port + p] = INNER if home[J] == home[u] else direction[e]
                        found += 1
                    f[p, i] += c
                    G[p] += c
        if not (m == known_m and ports == known_ports and _equal(a, known_a, f, known, m, ports)):
            known_m, known_ports = m, ports
            _copy(a, m, m, known_a)
            _copy(a, m, m, factors)
            _copy(f, ports, m, known)
            _solve(factors, m, f, G, ports, unit, potential, M, r)
        for p in range(ports):
            if p < n:
                total[first_port + p], resistance[first_port + p] = G[p], r[p]
            else:
                drain_total[u], drain_resistance[u] = G[p], r[p]
        w = weight_begin[u]
        for i in range(m):
            for p in range(ports):
                weight[w + p * m + i] = potential[p, i]


@njit(**STRICT)
def couple(
    child_begin, size, port_begin, drained, weight_begin, port_neighbour, total, resistance, drain_total,
    drain_resistance, weight, coefficient, opposite, fixed, first, end,
):  # fmt: skip
    """Coefficient of each port and where its counterpart stands, Dirichlet part of each unknown; W gets its
    factor g."""
    for u in range(first, end):
        low, high = port_begin[u], port_begin[u + 1]
        ports = high - low + (1 if drained[u] else 0)
        w = weight_begin[u]
        for p in range(low, high):
            J = port_neighbour[p]
            q = port_begin[J]
            while port_neighbour[q] != u:
                q += 1
            opposite[p] = q
            mine, theirs = (p, q) if u < J else (q, p)  # the same to the last bit on both sides
            g = 1 / (resistance[mine] + 1 / total[mine] + resistance[theirs])
            coefficient[p] = g
            for i in range(size[u]):
                weight[w + (p - low) * size[u] + i] *= g
        fixed[u] = 0.0
        if drained[u]:
            g = 1 / (drain_resistance[u] + 1 / drain_total[u])
            fixed[u] = g
            for i in range(size[u]):
                weight[w + (ports - 1) * size[u] + i] *= g


@njit(**STRICT)
def energy_bounds(
    pointer, neighbour, coefficient, fixed, child, child_begin, size, aggregate, place, port_begin, drained,
    weight_begin, weight, opposite, port_neighbour, bound, drain_bound, first, end,
):  # fmt: skip
    """For each port half of a bound on what P makes of its difference: with a_fp the share of port p in the
    difference across fine edge f, P^T A P <= diag(sum_f c_f |a_fp| sum_q |a_fq|)."""
    for u in range(first, end):
        low, high, begin, w = port_begin[u], port_begin[u + 1], child_begin[u], weight_begin[u]
        n, m = high - low, size[u]
        ports = n + 1 if drained[u] else n
        for p in range(low, high):
            bound[p] = 0.0
        drain = 0.0
        for i in range(m):
            node = child[begin + i]
            mine = w + i
            own = 0.0
            for p in range(ports):
                own += abs(weight[mine + p * m])
            c = fixed[node]
            if c > 0:
                last = weight[mine + n * m]
                a = abs(1 - last)
                s = own - abs(last) + a
                for p in range(n):
                    bound[low + p] += c * abs(weight[mine + p * m]) * s
                drain += c * a * s
            for e in range(pointer[node], pointer[node + 1]):
                other, c = neighbour[e], coefficient[e]
                J = aggregate[other]
                if J == u:
                    if other > node:
                        theirs = w + place[other]
                        s = 0.0
                        for p in range(ports):
                            s += abs(weight[mine + p * m] - weight[theirs + p * m])
                        for p in range(n):
                            bound[low + p] += c * abs(weight[mine + p * m] - weight[theirs + p * m]) * s
                        if ports > n:
                            drain += c * abs(weight[mine + n * m] - weight[theirs + n * m]) * s
                elif J != NONE:
                    here = low
                    while port_neighbour[here] != J:
                        here += 1
                    there = opposite[here] - port_begin[J]
                    stride = port_begin[J + 1] - port_begin[J] + (1 if drained[J] else 0)
                    theirs = weight_begin[J] + place[other]
                    s = own
                    for p in range(stride):
                        s += abs(weight[theirs + p * size[J]])
                    across = weight[mine + (here - low) * m]
                    s -= abs(across) + abs(weight[theirs + there * size[J]])
                    a = abs(1 - across - weight[theirs + there * size[J]])
                    s += a
                    for p in range(n):
                        if low + p == here:
                            bound[here] += 0.5 * c * a * s
                        else:
                            bound[low + p] += c * abs(weight[mine + p * m]) * s
                    if ports > n:
                        drain += c * abs(weight[mine + n * m]) * s
        drain_bound[u] = drain


@njit(**STRICT)
def clamp(port_begin, drained, opposite, bound, drain_bound, overshoot, coefficient, fixed, first, end):
    """Raise coefficients to their bound over ``overshoot``."""
    for u in range(first, end):
        for p in range(port_begin[u], port_begin[u + 1]):
            q = opposite[p]
            both = bound[p] + bound[q] if p < q else bound[q] + bound[p]
            coefficient[p] = max(coefficient[p], both / overshoot)
        if drained[u]:
            fixed[u] = max(fixed[u], drain_bound[u] / overshoot)


@njit(**STRICT)
def invert(pointer, coefficient, fixed, inverse, first, end):
    """1 / d of each node, 0 where it has no edges."""
    for i in range(first, end):
        d = np.float64(fixed[i])
        for e in range(pointer[i], pointer[i + 1]):
            d += coefficient[e]
        inverse[i] = 1 / d if d > 0 else 0.0
