//! Networks of convolutions: whichever layouts the compiler chooses for images, results
//! are those of eager execution.

use proptest::prelude::*;
use sinter_compiler::graph::{Graph, Origin, Symbol, Value};
use sinter_compiler::{Options, compile};
use sinter_kernels::conv::ConvKernel;
use sinter_runtime::op::TensorType;
use sinter_runtime::program::{Packing, Step};
use sinter_runtime::{DType, Dim, Extent, Op};

/// One layer: which, and of which of the images so far.
type Layer = (usize, usize, usize);

struct Net {
    g: Graph,
    images: Vec<Value>,
}

impl Net {
    fn new() -> Net {
        let mut g = Graph::new("images");
        g.symbols.push(Symbol { name: "N".into(), min: 1, max: 4, hint: 1 });
        let shape = [Dim::symbol(0), Dim::from(3), Dim::from(15), Dim::from(14)];
        let x = g.add_input("x", TensorType::new(DType::F32, &shape[..]));
        Net { g, images: vec![x] }
    }

    /// Channels, rows and columns.
    fn size(&self, v: Value) -> [usize; 3] {
        let shape = &self.g.type_of(v).shape;
        std::array::from_fn(|d| shape[d + 1].known().expect("images have a size"))
    }

    fn op(&mut self, text: &str, operands: &[Value]) -> Option<Value> {
        let op = Op::parse(text, &self.g.symbol_names()).expect(text);
        let node = self.g.add_op(op, operands, Origin::default()).ok()?;
        Some(Value { node, output: 0 })
    }

    fn constant(&mut self, shape: &[usize], seed: usize) -> Value {
        let data = crate::common::sample(shape, DType::F32, None, seed as u64);
        self.g.add_constant("w", data)
    }

    fn conv(
        &mut self,
        x: Value,
        o: usize,
        k: usize,
        stride: usize,
        groups: usize,
    ) -> Option<Value> {
        let [c, ..] = self.size(x);
        let w = self.constant(&[o, c / groups, k, k], o + k);
        // Sums that do not grow from layer to layer.
        let few = 1.0 / ((c / groups * k * k) as f64).sqrt();
        let few = self.op(&format!("full[value={few}, dtype=f32, shape=()]"), &[])?;
        let w = self.op("mul", &[w, few])?;
        let b = self.constant(&[o], k);
        let p = k / 2;
        let text = format!(
            "conv2d[stride=({stride}, {stride}), padding=({p}, {p}), dilation=(1, 1), groups={groups}, act=none]"
        );
        self.op(&text, &[x, w, b])
    }

    fn layer(&mut self, (which, a, b): Layer) -> Option<Value> {
        let pick = |k: usize| self.images[self.images.len() - 1 - k % self.images.len().min(3)];
        let (x, y) = (pick(a), pick(b));
        let [c, h, _] = self.size(x);
        let wide = [16, 24, 40, 7][b % 4];
        match which % 12 {
            0 => self.conv(x, wide, 1, 1, 1),
            1 => self.conv(x, wide, 3, 1, 1),
            2 if h > 4 => self.conv(x, wide, 3, 2, 1),
            3 => self.conv(x, c, 3, 1, c),
            4 if h > 4 => self.conv(x, c, 5, 2, c),
            5 => self.op("relu", &[x]),
            6 => {
                let six = self.op("full[value=0.4, dtype=f32, shape=()]", &[])?;
                self.op("minimum", &[x, six])
            }
            7 => self.op("add", &[x, y]),
            8 => {
                let gate = self.op("reduce[kind=sum, axes=(2, 3), keep=true]", &[x])?;
                let gate = self.conv(gate, c, 1, 1, 1)?;
                let gate = self.op("sigmoid", &[gate])?;
                self.op("mul", &[x, gate])
            }
            9 if h > 4 => self.op(
                "pool2d[kind=max, window=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), ceil=false]",
                &[x],
            ),
            10 => self.op(
                "pool2d[kind=avg, window=(2, 2), stride=(1, 1), padding=(0, 0), dilation=(1, 1), ceil=false]",
                &[x],
            ),
            11 => self.op("concat[axis=1]", &[x, y]),
            _ => self.op("gelu", &[x]),
        }
    }
}

fn build(layers: &[Layer]) -> Graph {
    let mut net = Net::new();
    for &layer in layers {
        if let Some(v) = net.layer(layer) {
            net.images.push(v);
        }
    }
    let last = *net.images.last().expect("there is the input");
    let mean =
        net.op("reduce[kind=sum, axes=(2, 3), keep=false]", &[last]).expect("it is an image");
    net.g.add_output(mean);
    if net.images.len() > 2 {
        let v = net.images[net.images.len() / 2];
        net.g.add_output(v);
    }
    net.g.remove_dead();
    net.g
}

/// How many convolutions have their channels side by side.
fn channels_last(g: &Graph) -> usize {
    let c = compile(g, &Options::default()).expect("the graph compiles");
    let last = |s: &&Step| match s {
        Step::Contract { packing: Packing::Conv(n), .. } => {
            ConvKernel::from_number(*n).is_some_and(ConvKernel::channels_last)
        }
        _ => false,
    };
    c.plan.program.steps.iter().filter(last).count()
}

/// A block of narrow, wide and narrow images with a shortcut, as in MobileNet-v2.
#[test]
fn small_images_have_their_channels_side_by_side() {
    let mut net = Net::new();
    let mut x = net.images[0];
    x = net.conv(x, 32, 3, 2, 1).expect("a stem");
    for _ in 0..2 {
        let wide = net.conv(x, 96, 1, 1, 1).expect("wider");
        let wide = net.op("relu", &[wide]).expect("relu");
        let each = net.conv(wide, 96, 3, 1, 96).expect("depthwise");
        let narrow = net.conv(each, 32, 1, 1, 1).expect("narrower");
        x = net.op("add", &[x, narrow]).expect("the same shape");
    }
    let y = net.op("reduce[kind=sum, axes=(2, 3), keep=false]", &[x]).expect("a mean");
    net.g.add_output(y);
    net.g.remove_dead();
    assert_eq!(channels_last(&net.g), 7);
    crate::common::check(&net.g, &[&[1], &[3]], 1).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_layout_agrees(
        layers in prop::collection::vec((0usize..1000, 0usize..1000, 0usize..1000), 2..14),
    ) {
        let g = build(&layers);
        if let Err(e) = crate::common::check(&g, &[&[1], &[3]], layers.len() as u64) {
            return Err(TestCaseError::fail(e));
        }
    }
}
