//! Choosing one node per class so that the whole costs least, shared parts
//! counted once.
//!
//! egg's own extractor adds up trees: where two users share a value it pays
//! twice, and in residual networks the error doubles with every layer. Here each
//! class keeps the set of classes its best choice needs, and improves greedily
//! until nothing changes.

use super::lang::{ENode, Graph, node_cost};
use egg::Id;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// The chosen node of each class needed, and the total cost.
pub struct Choice {
    /// Node of each class, by canonical id.
    pub nodes: FxHashMap<Id, ENode>,
    /// Sum over chosen nodes.
    pub cost: f64,
}

struct Candidate<'a> {
    cost: f64,
    children: Vec<usize>,
    node: &'a ENode,
}

#[derive(Clone)]
struct Best {
    total: f64,
    /// Bit set of the classes used, itself included.
    uses: Vec<u64>,
    candidate: usize,
}

/// Chooses for `roots`. Deterministic: classes and nodes are visited in order.
pub fn extract(g: &Graph, roots: &[Id]) -> Choice {
    let mut ids: Vec<Id> = g.classes().map(|c| c.id).collect();
    ids.sort_unstable();
    let place: FxHashMap<Id, usize> = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let words = ids.len().div_ceil(64);

    let candidates: Vec<Vec<Candidate<'_>>> = ids
        .iter()
        .map(|&id| {
            let mut nodes: Vec<&ENode> = g[id].nodes.iter().collect();
            nodes.sort_unstable();
            nodes
                .into_iter()
                .map(|node| {
                    let mut children: Vec<usize> =
                        node.children.iter().map(|c| place[&g.find(*c)]).collect();
                    children.sort_unstable();
                    children.dedup();
                    Candidate { cost: node_cost(g, node, id), children, node }
                })
                .collect()
        })
        .collect();
    let mut users: Vec<Vec<usize>> = vec![vec![]; ids.len()];
    for (i, list) in candidates.iter().enumerate() {
        for &c in list.iter().flat_map(|c| &c.children) {
            if users[c].last() != Some(&i) {
                users[c].push(i);
            }
        }
    }

    let mut best: Vec<Option<Best>> = vec![None; ids.len()];
    let mut own = vec![0.0; ids.len()];
    let mut queue: VecDeque<usize> =
        (0..ids.len()).filter(|&i| candidates[i].iter().any(|c| c.children.is_empty())).collect();
    let mut queued = vec![false; ids.len()];
    for &i in &queue {
        queued[i] = true;
    }
    // Greedy improvement can chase its tail through shared sets; each class gets
    // a bounded number of turns.
    let mut turns = vec![0u32; ids.len()];
    while let Some(i) = queue.pop_front() {
        queued[i] = false;
        turns[i] += 1;
        if turns[i] > 64 {
            continue;
        }
        let mut improved = false;
        for (k, c) in candidates[i].iter().enumerate() {
            let Some(uses) = union_of(&best, &c.children, words) else { continue };
            if uses[i / 64] >> (i % 64) & 1 == 1 {
                continue; // would need itself
            }
            let total = c.cost + sum_over(&uses, &own);
            if best[i].as_ref().is_none_or(|b| total < b.total - 1e-9) {
                let mut uses = uses;
                uses[i / 64] |= 1 << (i % 64);
                best[i] = Some(Best { total, uses, candidate: k });
                own[i] = c.cost;
                improved = true;
            }
        }
        if improved {
            for &u in &users[i] {
                if !queued[u] {
                    queued[u] = true;
                    queue.push_back(u);
                }
            }
        }
    }

    let choice: Vec<Option<usize>> = best.iter().map(|b| b.as_ref().map(|b| b.candidate)).collect();
    let roots: Vec<usize> = roots.iter().map(|r| place[&g.find(*r)]).collect();
    let choice = shared(&candidates, choice, &roots);
    let needed = needed(&candidates, &choice, &roots);
    let mut nodes = FxHashMap::default();
    let mut cost = 0.0;
    for i in (0..ids.len()).filter(|&i| needed[i]) {
        let c = chosen(&candidates, &choice, i);
        cost += c.cost;
        nodes.insert(ids[i], c.node.clone());
    }
    Choice { nodes, cost }
}

fn chosen<'a, 'b>(
    candidates: &'b [Vec<Candidate<'a>>],
    choice: &[Option<usize>],
    i: usize,
) -> &'b Candidate<'a> {
    &candidates[i][choice[i].expect("every class of a graph's node has a finite choice")]
}

/// The classes that the roots need.
fn needed(
    candidates: &[Vec<Candidate<'_>>],
    choice: &[Option<usize>],
    roots: &[usize],
) -> Vec<bool> {
    let mut needed = vec![false; candidates.len()];
    let mut todo = roots.to_vec();
    while let Some(i) = todo.pop() {
        if !std::mem::replace(&mut needed[i], true) {
            todo.extend(&chosen(candidates, choice, i).children);
        }
    }
    needed
}

/// Rounds of [`shared`], at most.
const ROUNDS: usize = 8;

/// Changes choices for ones that cost less where what they are made of is needed anyway:
/// each class has chosen as if it were the only one. A product that is needed as it is,
/// too, is not computed once more with an activation.
fn shared(
    candidates: &[Vec<Candidate<'_>>],
    mut choice: Vec<Option<usize>>,
    roots: &[usize],
) -> Vec<Option<usize>> {
    for _ in 0..ROUNDS {
        let there = needed(candidates, &choice, roots);
        let mut changed = false;
        for i in (0..candidates.len()).filter(|&i| there[i]) {
            let now = chosen(candidates, &choice, i).cost;
            let cheaper = |c: &Candidate<'_>| {
                c.cost < now - 1e-9 && c.children.iter().all(|&k| k != i && there[k])
            };
            let mut others: Vec<usize> =
                (0..candidates[i].len()).filter(|&k| cheaper(&candidates[i][k])).collect();
            others.sort_by(|a, b| candidates[i][*a].cost.total_cmp(&candidates[i][*b].cost));
            let free = others
                .into_iter()
                .find(|&k| !reaches(candidates, &choice, &candidates[i][k].children, i));
            if free.is_some() {
                choice[i] = free;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    choice
}

/// Whether one of the classes needs the class `to`.
fn reaches(
    candidates: &[Vec<Candidate<'_>>],
    choice: &[Option<usize>],
    from: &[usize],
    to: usize,
) -> bool {
    let mut seen = vec![false; candidates.len()];
    let mut todo = from.to_vec();
    while let Some(i) = todo.pop() {
        if i == to {
            return true;
        }
        if !std::mem::replace(&mut seen[i], true) {
            todo.extend(&chosen(candidates, choice, i).children);
        }
    }
    false
}

fn union_of(best: &[Option<Best>], children: &[usize], words: usize) -> Option<Vec<u64>> {
    let mut out = vec![0u64; words];
    for &c in children {
        for (o, w) in out.iter_mut().zip(&best[c].as_ref()?.uses) {
            *o |= w;
        }
    }
    Some(out)
}

fn sum_over(set: &[u64], own: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (w, &word) in set.iter().enumerate() {
        let mut word = word;
        while word != 0 {
            sum += own[w * 64 + word.trailing_zeros() as usize];
            word &= word - 1;
        }
    }
    sum
}
