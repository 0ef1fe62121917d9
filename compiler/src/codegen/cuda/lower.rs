//! From a kernel to a device function: the walk over the iteration space.

use super::writer::{Value, Writer, held, line, op, stored};
use super::{BLOCK, CudaError, Param, Team};
use crate::kernel::{Arg, Inst, Kernel, Level, Stage};
use sinter_runtime::op::ReduceKind;
use sinter_runtime::{DType, Dim, Extent};
use std::fmt::Write;

/// Threads of a warp.
const WARP: u32 = 32;

/// A kernel as MLIR.
pub(super) struct Lowered {
    pub(super) entry: String,
    pub(super) mlir: String,
    pub(super) params: Vec<Param>,
    pub(super) team: Team,
}

/// Lowers a kernel, or says what stands in the way.
pub(super) fn lower(k: &Kernel, team: Team) -> Result<Lowered, CudaError> {
    check(k).map_err(|reason| CudaError::Kernel { kernel: k.name.clone(), reason })?;
    let mut l = Lowering {
        k,
        team,
        w: Writer::default(),
        member: Value::Local(0),
        index: vec![],
        at: vec![],
        rows: vec![],
        shared: String::new(),
    };
    l.body()?;
    let mut params: Vec<Param> = Vec::new();
    for a in &k.args {
        if !params.contains(&Param::Buffer(a.buffer)) {
            params.push(Param::Buffer(a.buffer));
        }
    }
    params.extend(l.w.symbols.iter().map(|&s| Param::Size(s)));
    let entry = entry_name(&k.name);
    let mlir = module(k, &entry, &params, l.shared.trim_end_matches(", "), &l.w.finish());
    Ok(Lowered { entry, mlir, params, team })
}

/// The module around a function's body.
fn module(k: &Kernel, entry: &str, params: &[Param], shared: &str, body: &str) -> String {
    let written = |b: u32| stores(&k.stages).any(|a| k.args[a as usize].buffer == b);
    let params: Vec<String> = params
        .iter()
        .map(|p| match *p {
            Param::Size(s) => format!("{}: i64", Value::Size(s)),
            // To LLVM a pointer without aliases is one that no other thread writes
            // through, not even before a barrier: that holds of what is only read.
            Param::Buffer(b) if !written(b) => {
                format!("{}: !llvm.ptr<1> {{llvm.noalias}}", Value::Buffer(b))
            }
            Param::Buffer(b) => format!("{}: !llvm.ptr<1>", Value::Buffer(b)),
        })
        .collect();
    let workgroup =
        if shared.is_empty() { String::new() } else { format!("\n      workgroup({shared})") };
    format!(
        "gpu.module @device {{\n  gpu.func @{entry}({}){workgroup} kernel\n      \
         attributes {{known_block_size = array<i32: {BLOCK}, 1, 1>}} {{\n{body}    \
         gpu.return\n  }}\n}}\n",
        params.join(", ")
    )
}

/// A kernel's name as a symbol of PTX.
fn entry_name(name: &str) -> String {
    let mut entry = String::new();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        entry.push_str("k_");
    }
    entry.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    entry
}

fn row_length(k: &Kernel) -> Dim {
    k.extents[k.parallel..].iter().fold(Dim::of(1), |n, d| n.times(d))
}

/// Who works on a row, where nothing else is said.
pub(super) fn team(k: &Kernel) -> Team {
    if k.parallel == k.extents.len() { Team::Thread } else { Team::of_row(row_length(k).known()) }
}

/// What the walk relies on: that iterations do not disturb each other.
fn check(k: &Kernel) -> Result<(), String> {
    if k.hook {
        return Err("it finishes the tiles of a contraction on the processor".into());
    }
    for a in loads(&k.stages).chain(stores(&k.stages)) {
        let other = stores(&k.stages).find(|&w| w != a && same_buffer(k, w, a));
        if let Some(w) = other {
            return Err(format!("argument {a} lies where it writes argument {w}"));
        }
    }
    for s in &k.stages {
        let axes = if s.level == Level::Element { k.extents.len() } else { k.parallel };
        for &(a, _) in &s.stores {
            let still = |d: &usize| k.args[a as usize].strides[*d].is(0) && !k.extents[*d].is(1);
            if let Some(d) = (0..axes).find(still) {
                return Err(format!("argument {a} is written anew at every step of axis {d}"));
            }
        }
        for (inst, _) in &s.insts {
            if let Inst::Index(axis) = inst
                && *axis as usize >= axes
            {
                return Err(format!("a row has no index along its axis {axis}"));
            }
        }
    }
    Ok(())
}

fn same_buffer(k: &Kernel, a: u32, b: u32) -> bool {
    k.args[a as usize].buffer == k.args[b as usize].buffer
}

fn loads<'a>(stages: impl IntoIterator<Item = &'a Stage>) -> impl Iterator<Item = u32> {
    stages.into_iter().flat_map(|s| &s.insts).filter_map(|(i, _)| match i {
        Inst::Load(a) | Inst::Far(a, _) => Some(*a),
        _ => None,
    })
}

fn stores<'a>(stages: impl IntoIterator<Item = &'a Stage>) -> impl Iterator<Item = u32> {
    stages.into_iter().flat_map(|s| &s.stores).map(|&(a, _)| a)
}

/// Whether threads of a team meet in memory between two stages: what one writes,
/// another reads or writes. Two element stages give each element to one thread.
fn meet(earlier: &Stage, later: &Stage) -> bool {
    let touches = |s, a| stores([s]).chain(loads([s])).any(|b| a == b);
    (earlier.level, later.level) != (Level::Element, Level::Element)
        && (stores([earlier]).any(|a| touches(later, a))
            || stores([later]).any(|a| touches(earlier, a)))
}

struct Lowering<'a> {
    k: &'a Kernel,
    team: Team,
    w: Writer,
    /// This thread's number in its team.
    member: Value,
    /// This team's indices along the parallel axes.
    index: Vec<Value>,
    /// Where each argument's row starts, in elements.
    at: Vec<Value>,
    /// Row values so far.
    rows: Vec<(Value, DType)>,
    /// Memory shared by a block, as parameters of the function.
    shared: String,
}

impl Lowering<'_> {
    fn body(&mut self) -> Result<(), CudaError> {
        let w = &mut self.w;
        let block = op!(w, "gpu.block_id x");
        let block = op!(w, "arith.index_cast {block} : index to i64");
        let thread = op!(w, "gpu.thread_id x");
        let thread = op!(w, "arith.index_cast {thread} : index to i64");
        let threads = self.team.threads();
        let row = if self.team == Team::Block {
            self.member = thread;
            block
        } else {
            let (size, teams) = (w.int(threads.into()), w.int((BLOCK / threads).into()));
            let first = op!(w, "arith.muli {block}, {teams} : i64");
            let team = op!(w, "arith.divui {thread}, {size} : i64");
            self.member = op!(w, "arith.remui {thread}, {size} : i64");
            op!(w, "arith.addi {first}, {team} : i64")
        };
        let extents = &self.k.extents[..self.k.parallel];
        // The grid has as many blocks as there are rows, but rounds up to whole blocks.
        let guarded = self.team != Team::Block;
        if guarded {
            let n = w.extent(&extents.iter().fold(Dim::of(1), |n, d| n.times(d)));
            let inside = op!(w, "arith.cmpi slt, {row}, {n} : i64");
            w.open(format_args!("scf.if {inside} {{"));
        }
        self.index = indices(w, row, extents);
        for a in &self.k.args {
            let start = w.extent(&a.offset);
            let at = self.index.iter().zip(&a.strides);
            let at = at.fold(start, |at, (&i, stride)| w.advance(at, i, stride));
            self.at.push(at);
        }
        let stages: Vec<&Stage> = self.k.stages.iter().filter(|s| !s.is_idle()).collect();
        let mut met = 0;
        for (i, stage) in stages.iter().enumerate() {
            if stages[met..i].iter().any(|earlier| meet(earlier, stage)) {
                self.wait();
                met = i;
            }
            match stage.level {
                Level::Element => self.element_stage(stage)?,
                Level::Row => self.row_stage(stage)?,
            }
        }
        if guarded {
            self.w.close();
        }
        Ok(())
    }

    /// Waits for the whole team; what it wrote is visible to it afterwards.
    fn wait(&mut self) {
        match self.team {
            Team::Thread => {}
            Team::Warp => {
                let all = self.w.int32(-1);
                line!(self.w, "nvvm.bar.warp.sync {all} : i32");
            }
            Team::Block => line!(self.w, "gpu.barrier"),
        }
    }

    /// Every thread computes a row stage; the first one stores.
    fn row_stage(&mut self, s: &Stage) -> Result<(), CudaError> {
        let (index, at) = (self.index.clone(), self.at.clone());
        let values = self.insts(s, &index, &at)?;
        if stores([s]).any(|a| loads([s]).any(|b| a == b)) {
            self.wait();
        }
        if !s.stores.is_empty() {
            let zero = self.w.int(0);
            let member = self.member;
            let first = op!(self.w, "arith.cmpi eq, {member}, {zero} : i64");
            self.w.open(format_args!("scf.if {first} {{"));
            self.stores(s, &values, &at);
            self.w.close();
        }
        for &r in &s.results {
            self.rows.push((values[r as usize], s.insts[r as usize].1));
        }
        Ok(())
    }

    fn element_stage(&mut self, s: &Stage) -> Result<(), CudaError> {
        let reduced: Vec<(ReduceKind, DType)> =
            s.reductions.iter().map(|&(kind, r)| (kind, s.insts[r as usize].1)).collect();
        let start: Vec<Value> = reduced
            .iter()
            .map(|&(kind, d)| self.w.identity(kind, Writer::accumulator(d)))
            .collect();
        if self.team == Team::Thread {
            let (index, at) = (self.index.clone(), self.at.clone());
            let sums = self.elements(s, &index, &at, &start)?;
            self.rounded(&reduced, &sums);
            return Ok(());
        }
        // Each reduction has two partial results, which take turns: the loop hands
        // them on in exchanged order.
        let names = |w: &mut Writer, n: usize| (0..n).map(|_| w.fresh()).collect::<Vec<_>>();
        let results = names(&mut self.w, 2 * start.len());
        let j = self.w.fresh();
        let carried = names(&mut self.w, 2 * start.len());
        let n = self.w.extent(&row_length(self.k));
        let step = self.w.int(self.team.threads().into());
        self.open_loop(&results, j, (n, step), &carried, &start, &reduced);
        let mut index = self.index.clone();
        index.extend(indices(&mut self.w, j, &self.k.extents[self.k.parallel..]));
        let mut at = self.at.clone();
        for (at, a) in at.iter_mut().zip(&self.k.args) {
            for d in self.k.parallel..self.k.extents.len() {
                *at = self.w.advance(*at, index[d], &a.strides[d]);
            }
        }
        let firsts: Vec<Value> = carried.iter().copied().step_by(2).collect();
        let sums = self.elements(s, &index, &at, &firsts)?;
        if !sums.is_empty() {
            let pairs = sums.iter().enumerate().flat_map(|(i, sum)| [carried[2 * i + 1], *sum]);
            let values: Vec<String> = pairs.map(|v| v.to_string()).collect();
            line!(self.w, "scf.yield {} : {}", values.join(", "), pair_types(&reduced));
        }
        self.w.close();
        let mut sums = vec![];
        for (i, &(kind, d)) in reduced.iter().enumerate() {
            let acc = Writer::accumulator(d);
            let both = self.w.combine(kind, acc, results[2 * i], results[2 * i + 1])?;
            sums.push(self.across(kind, acc, both)?);
        }
        self.rounded(&reduced, &sums);
        Ok(())
    }

    fn open_loop(
        &mut self,
        results: &[Value],
        j: Value,
        (n, step): (Value, Value),
        carried: &[Value],
        start: &[Value],
        reduced: &[(ReduceKind, DType)],
    ) {
        let member = self.member;
        let bounds = format!("scf.for {j} = {member} to {n} step {step}");
        if reduced.is_empty() {
            return self.w.open(format_args!("{bounds} : i64 {{"));
        }
        let results: Vec<String> = results.iter().map(Value::to_string).collect();
        let initial: Vec<String> =
            carried.iter().enumerate().map(|(i, c)| format!("{c} = {}", start[i / 2])).collect();
        self.w.open(format_args!(
            "{} = {bounds} iter_args({}) -> ({}) : i64 {{",
            results.join(", "),
            initial.join(", "),
            pair_types(reduced)
        ));
    }

    /// One element: stores its values, and adds to the reductions' `sums`.
    fn elements(
        &mut self,
        s: &Stage,
        index: &[Value],
        at: &[Value],
        sums: &[Value],
    ) -> Result<Vec<Value>, CudaError> {
        let values = self.insts(s, index, at)?;
        self.stores(s, &values, at);
        let mut out = vec![];
        for (&(kind, r), &sum) in s.reductions.iter().zip(sums) {
            let d = s.insts[r as usize].1;
            let acc = Writer::accumulator(d);
            let x = self.w.convert(values[r as usize], d, acc);
            out.push(self.w.combine(kind, acc, sum, x)?);
        }
        Ok(out)
    }

    /// Finished reductions become row values, in the types of what was reduced.
    fn rounded(&mut self, reduced: &[(ReduceKind, DType)], sums: &[Value]) {
        for (&(_, d), &sum) in reduced.iter().zip(sums) {
            let v = self.w.convert(sum, Writer::accumulator(d), d);
            self.rows.push((v, d));
        }
    }

    /// Joins the team's partial results; every thread gets the whole.
    fn across(&mut self, kind: ReduceKind, d: DType, mut x: Value) -> Result<Value, CudaError> {
        for distance in [16, 8, 4, 2, 1] {
            let other = self.shuffle("down", d, x, distance);
            x = self.w.combine(kind, d, x, other)?;
        }
        if self.team == Team::Warp {
            return Ok(self.shuffle("idx", d, x, 0));
        }
        // The first thread of each warp writes; all read. No other reduction uses the
        // place, so nobody has to wait before writing.
        let ty = format!("memref<{}x{}, #gpu.address_space<workgroup>>", BLOCK / WARP, stored(d));
        let place = self.w.fresh();
        // Threads read several neighbours at once, which lie where a vector may.
        write!(self.shared, "{place} : {ty} {{llvm.align = 16 : i64}}, ")
            .expect("writing to a string does not fail");
        let (size, zero) = (self.w.int(WARP.into()), self.w.int(0));
        let thread = self.member;
        let lane = op!(self.w, "arith.remui {thread}, {size} : i64");
        let first = op!(self.w, "arith.cmpi eq, {lane}, {zero} : i64");
        self.w.open(format_args!("scf.if {first} {{"));
        let warp = op!(self.w, "arith.divui {thread}, {size} : i64");
        let warp = op!(self.w, "arith.index_cast {warp} : i64 to index");
        let kept = self.kept(d, x);
        line!(self.w, "memref.store {kept}, {place}[{warp}] : {ty}");
        self.w.close();
        line!(self.w, "gpu.barrier");
        let mut all: Option<Value> = None;
        for warp in 0..BLOCK / WARP {
            let i = op!(self.w, "arith.constant {warp} : index");
            let x = op!(self.w, "memref.load {place}[{i}] : {ty}");
            let x = self.loaded(d, x);
            all = Some(match all {
                Some(a) => self.w.combine(kind, d, a, x)?,
                None => x,
            });
        }
        Ok(all.expect("a block has warps"))
    }

    /// A value of another thread of the warp. Narrow values travel in 32 bits.
    fn shuffle(&mut self, how: &str, d: DType, x: Value, by: i32) -> Value {
        let travels = if d.size() < 4 { DType::I32 } else { d };
        let x = self.w.convert(x, d, travels);
        let (by, width) = (self.w.int32(by), self.w.int32(WARP as i32));
        let (y, valid) = (self.w.fresh(), self.w.fresh());
        line!(self.w, "{y}, {valid} = gpu.shuffle {how} {x}, {by}, {width} : {}", held(travels));
        self.w.convert(y, travels, d)
    }

    fn insts(&mut self, s: &Stage, index: &[Value], at: &[Value]) -> Result<Vec<Value>, CudaError> {
        let mut values: Vec<Value> = Vec::with_capacity(s.insts.len());
        for (inst, d) in &s.insts {
            let v = |r: u32| values[r as usize];
            let ty = |r: u32| s.insts[r as usize].1;
            let value = match *inst {
                Inst::Load(a) => self.load(&self.k.args[a as usize], at[a as usize]),
                Inst::Far(a, r) => {
                    let arg = &self.k.args[a as usize];
                    let step = &arg.strides[self.k.extents.len()];
                    let at = self.w.advance(at[a as usize], v(r), step);
                    self.load(arg, at)
                }
                Inst::Const(c) => self.w.constant(c, *d),
                Inst::Row(r) => self.rows[r as usize].0,
                Inst::Index(a) => self.w.convert(index[a as usize], DType::I64, *d),
                Inst::Unary(u, x) => self.w.unary(u, ty(x), v(x))?,
                Inst::Binary(b, x, y) => self.w.binary(b, ty(x), v(x), v(y))?,
                Inst::Compare(c, x, y) => self.w.compare(c, ty(x), v(x), v(y)),
                Inst::Select(c, x, y) => self.w.choose(v(c), v(x), v(y), *d),
                Inst::Cast(x) => self.w.convert(v(x), ty(x), *d),
            };
            values.push(value);
        }
        Ok(values)
    }

    fn address(&mut self, a: &Arg, at: Value) -> Value {
        let (buffer, ty) = (Value::Buffer(a.buffer), stored(a.dtype));
        op!(self.w, "llvm.getelementptr {buffer}[{at}] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, {ty}")
    }

    fn load(&mut self, a: &Arg, at: Value) -> Value {
        let p = self.address(a, at);
        let x = op!(self.w, "llvm.load {p} {} : !llvm.ptr<1> -> {}", aligned(a), stored(a.dtype));
        self.loaded(a.dtype, x)
    }

    fn stores(&mut self, s: &Stage, values: &[Value], at: &[Value]) {
        for &(arg, r) in &s.stores {
            let a = &self.k.args[arg as usize];
            let p = self.address(a, at[arg as usize]);
            let x = self.kept(a.dtype, values[r as usize]);
            line!(self.w, "llvm.store {x}, {p} {} : {}, !llvm.ptr<1>", aligned(a), stored(a.dtype));
        }
    }

    /// Truth values are bytes in memory.
    fn kept(&mut self, d: DType, x: Value) -> Value {
        self.w.convert(x, d, if d == DType::Bool { DType::U8 } else { d })
    }

    fn loaded(&mut self, d: DType, x: Value) -> Value {
        self.w.convert(x, if d == DType::Bool { DType::U8 } else { d }, d)
    }
}

/// Said with every access: MLIR would assume less for eight bytes than devices need
/// to move them at once.
fn aligned(a: &Arg) -> String {
    format!("{{alignment = {} : i64}}", a.dtype.size())
}

/// The indices along axes of these extents, the last one fastest, of the iteration
/// with that number.
fn indices(w: &mut Writer, number: Value, extents: &[Dim]) -> Vec<Value> {
    let mut rest = number;
    let mut index = vec![];
    for (d, extent) in extents.iter().enumerate().rev() {
        if d == 0 {
            index.push(rest);
            break;
        }
        let n = w.extent(extent);
        index.push(op!(w, "arith.remui {rest}, {n} : i64"));
        rest = op!(w, "arith.divui {rest}, {n} : i64");
    }
    index.reverse();
    index
}

/// `f32, f32, i64, i64`: the two partial results of each reduction.
fn pair_types(reduced: &[(ReduceKind, DType)]) -> String {
    let twice = |&(_, d): &(ReduceKind, DType)| {
        let ty = held(Writer::accumulator(d));
        format!("{ty}, {ty}")
    };
    reduced.iter().map(twice).collect::<Vec<_>>().join(", ")
}
