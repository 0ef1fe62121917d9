//! Minimum cuts: the cheapest way to part what has to be on one side from what has to be
//! on the other.

use petgraph::algo::dinics;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use rustc_hash::FxHashSet;

/// The nodes on the side of `sink` in a minimum cut of a network of capacities; of all
/// minimum cuts the one with the fewest of them.
pub(crate) fn sink_side(
    net: &DiGraph<(), u64>,
    source: NodeIndex,
    sink: NodeIndex,
) -> FxHashSet<NodeIndex> {
    let (_, flow) = dinics(net, source, sink);
    // What still reaches the sink.
    let mut side: FxHashSet<NodeIndex> = [sink].into_iter().collect();
    let mut todo = vec![sink];
    while let Some(n) = todo.pop() {
        let before = net.edges_directed(n, petgraph::Incoming);
        let before = before.filter(|e| flow[e.id().index()] < *e.weight()).map(|e| e.source());
        let after = net.edges_directed(n, petgraph::Outgoing);
        let after = after.filter(|e| flow[e.id().index()] > 0).map(|e| e.target());
        todo.extend(before.chain(after).filter(|&m| side.insert(m)));
    }
    side
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_cuts_the_one_nearest_to_the_sink() {
        let mut net = DiGraph::new();
        let [source, a, b, c, sink] = [(); 5].map(|()| net.add_node(()));
        for (from, to, capacity) in [(source, a, 5), (a, b, 2), (b, c, 2), (c, sink, 9)] {
            net.add_edge(from, to, capacity);
        }
        assert_eq!(sink_side(&net, source, sink), [c, sink].into_iter().collect());
        // What neither end touches belongs to neither cost: it stays with the source.
        let lone = net.add_node(());
        assert!(!sink_side(&net, source, sink).contains(&lone));
        net.add_edge(source, c, 1);
        assert_eq!(sink_side(&net, source, sink), [c, sink].into_iter().collect());
    }
}
