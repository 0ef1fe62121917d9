//! Operands as kernels want them: in the right order, packed, or as integers.

use super::*;

impl Lowering<'_> {
    /// A dense copy where the layout is not dense already.
    pub(super) fn densely(&mut self, at: Located) -> Located {
        let order: Vec<usize> = (0..at.shape.len()).collect();
        self.lying(at, &order)
    }

    /// A copy without gaps whose axes lie in that order, where these do not already.
    pub(super) fn lying(&mut self, at: Located, order: &[usize]) -> Located {
        let wanted = at.clone().lying(order);
        let same = |((n, s), w): ((&Dim, &Dim), &Dim)| n.is(1) || s == w;
        if at.shape.iter().zip(&at.strides).zip(&wanted.strides).all(same) {
            return at;
        }
        let known = self.copies.get(&at.buffer).into_iter().flatten();
        let like = |out: &Located| out.strides == wanted.strides;
        if let Some((_, out)) = known.into_iter().find(|(from, out)| *from == at && like(out)) {
            return out.clone();
        }
        let step = self.steps.len() as u32;
        let out =
            self.buffer_of(at.dtype, &at.shape.clone(), Place::Temp { first: step, last: step });
        let out = out.lying(order);
        let op = Op::Broadcast { shape: at.shape.iter().cloned().collect() };
        self.library(op, std::slice::from_ref(&at), std::slice::from_ref(&out));
        self.copies.entry(at.buffer).or_default().push((at, out.clone()));
        out
    }

    /// Of the operands from outside, images that do not lie as a kernel goes through them:
    /// turned, because reading them across takes longer.
    pub(super) fn turned(&mut self, nodes: &[NodeId], last: bool) -> FxHashMap<Value, Located> {
        let order = if last { CHANNELS_LAST } else { [0, 1, 2, 3] };
        let mut turned = FxHashMap::default();
        for v in nodes.iter().flat_map(|&n| self.g.operands(n)) {
            let view = self.g.op(v.node).is_some_and(Op::is_view);
            let Some(at) = self.located.get(&v).filter(|_| !view && !nodes.contains(&v.node))
            else {
                continue;
            };
            if self.layouts.is_last(v) != last && channels::is_image(self.g, v) {
                let at = at.clone();
                turned.insert(v, self.lying(at, &order));
            }
        }
        turned
    }

    /// Operands of a product as [m, k] × [k, n] or [b, m, k] × [b, k, n]; the right
    /// one packed when it is a constant.
    #[allow(clippy::type_complexity)]
    pub(super) fn matmul_operands(
        &mut self,
        anchor: NodeId,
        x: Located,
        w: Value,
    ) -> Result<Option<([View; 2], Packing)>, PlanError> {
        let shape = self.g.node(anchor).types[0].shape.to_vec();
        let rank = shape.len();
        let wt = self.g.type_of(w).clone();
        if wt.shape.len() == 2 {
            let lead = x.shape.len() - 1;
            let x = match x.merge(0, lead) {
                Some(m) => m,
                None => self.densely(x).merge(0, lead).expect("dense dimensions merge"),
            };
            if let Some(a) = self.constant(w) {
                if let Some(w) = self.integers(anchor, w, &a, None)? {
                    return Ok(Some(([x.view(), w], Packing::Int8)));
                }
                let (how, why) = self.exactness.matrix(x.shape[0].known());
                self.note(anchor, why);
                return Ok(Some(([x.view(), self.packed(w, a, how)], how.packing())));
            }
            self.note(anchor, self.exactness.varying());
            let w = self.locate(w)?;
            return Ok(Some(([x.view(), w.view()], Packing::None)));
        }
        self.note(anchor, self.exactness.varying());
        let w = self.locate(w)?;
        let batched = |m: &Located| {
            let mut full: Vec<Dim> = shape[..rank - 2].to_vec();
            full.extend(m.shape[m.shape.len() - 2..].iter().cloned());
            m.broadcast(&full).merge(0, rank - 2)
        };
        match (batched(&x), batched(&w)) {
            (Some(x), Some(w)) => Ok(Some(([x.view(), w.view()], Packing::None))),
            _ => Ok(None),
        }
    }

    pub(super) fn conv_operands(
        &mut self,
        anchor: NodeId,
        x: Located,
        w: Value,
    ) -> Result<([View; 2], Packing), PlanError> {
        if let (Some(a), Some(conv)) = (self.constant(w), channels::image(self.g, anchor)) {
            let last = self.layouts.is_last(Value { node: anchor, output: 0 });
            let chosen = self.choices.of(anchor).and_then(|c| c.filter);
            let layer = self.quantized.is_some_and(|q| q.layers.contains_key(&anchor));
            let (kernel, why) = self.exactness.of_layer(layer).filter(&conv, last, chosen);
            self.note(anchor, why);
            let x = match last {
                true if kernel.any_input(conv.weight) => x,
                true => self.lying(x, &CHANNELS_LAST),
                false => self.densely(x),
            };
            let how = How::Filter(kernel, conv.params);
            let w = match self.integers(anchor, w, &a, Some((kernel, conv.params)))? {
                Some(w) => w,
                None => self.packed(w, a, how),
            };
            return Ok(([x.view(), w], how.packing()));
        }
        let x = self.densely(x);
        // Images of open sizes lie in planes.
        let filter = self.g.op(anchor).and_then(params).map(|p| (ConvKernel::Quads, p));
        if let Some(a) = self.constant(w)
            && let Some(w) = self.integers(anchor, w, &a, filter)?
        {
            return Ok(([x.view(), w], Packing::Conv(ConvKernel::Quads.number())));
        }
        let w = self.locate(w)?;
        let w = self.densely(w);
        Ok(([x.view(), w.view()], Packing::None))
    }

    /// The weight `v`, whose values are `a`, as a kernel wants it: packed once, however
    /// many steps use it.
    pub(super) fn packed(&mut self, v: Value, a: Data, how: How) -> View {
        let shape: Vec<Dim> = a.ty().shape.iter().map(|&d| Dim::of(d)).collect();
        let buffer = match self.packed.get(&(v, how)) {
            Some(&buffer) => buffer,
            None => {
                let buffer = self.store(Stored::Packed(Packed::new(a, how))).buffer;
                self.packed.insert((v, how), buffer);
                buffer
            }
        };
        View { buffer, offset: Dim::of(0), strides: dense(&shape), shape }
    }

    /// The weight `v`, whose values are `a`, of a contraction that is computed with integers.
    fn integers(
        &mut self,
        anchor: NodeId,
        v: Value,
        a: &Data,
        filter: Option<(ConvKernel, ConvParams)>,
    ) -> Result<Option<View>, PlanError> {
        let Some(layer) = self.quantized.and_then(|q| q.layers.get(&anchor)) else {
            return Ok(None);
        };
        let packed = layer.packed(a, filter)?;
        let shape = self.g.type_of(v).shape.to_vec();
        let buffer = self.store(Stored::Ready(packed)).buffer;
        Ok(Some(View { buffer, offset: Dim::of(0), strides: dense(&shape), shape }))
    }

    pub(super) fn constant(&self, v: Value) -> Option<Data> {
        match &self.g.node(v.node).kind {
            Kind::Constant(i) => self.g.constants[*i].data.clone(),
            _ => None,
        }
    }
}
