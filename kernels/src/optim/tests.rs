use super::*;
use crate::testing::{Operand, assert_close, noise32, same_everywhere};

const PARAM: [f32; 3] = [0.5, -1.0, 2.0];
const GRADS: [[f32; 3]; 3] = [[0.1, -0.2, 0.3], [-0.4, 0.05, 0.6], [0.25, 0.15, -0.35]];

/// Parameters after three steps, starting from zero state.
fn three_steps<T: Real, const K: usize>(
    style: u64,
    step: impl Fn(u64, Src<T>, Dst<T>, [Dst<T>; K]),
) -> Vec<T> {
    let operand = |v: [f32; 3]| Operand::new(&[1, 3], style, &v.map(|v| T::of(f64::from(v))));
    let param = operand(PARAM);
    let state: [Operand<T>; K] = std::array::from_fn(|_| operand([0.0; 3]));
    for (i, g) in GRADS.into_iter().enumerate() {
        let state = std::array::from_fn(|k| state[k].dst());
        step(i as u64 + 1, operand(g).src(), param.dst(), state);
    }
    param.values()
}

const SGD: Sgd = Sgd {
    lr: 0.1,
    momentum: 0.0,
    dampening: 0.0,
    weight_decay: 0.0,
    nesterov: false,
    maximize: false,
};
const ADAM: Adam = Adam {
    lr: 0.1,
    betas: [0.9, 0.999],
    eps: 1e-8,
    weight_decay: 0.0,
    decoupled: false,
    maximize: false,
};
const RMS: RmsProp =
    RmsProp { lr: 0.1, alpha: 0.9, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, maximize: false };

/// The tables come from PyTorch 2.15, in double precision.
fn all<T: Real>(tolerance: f64) {
    for style in [0, 3] {
        let check = |got: Vec<T>, want: [f64; 3]| assert_close(&got, &want, tolerance);

        check(
            three_steps(style, |_, g, p, []| sgd(&SGD, g, p, None, false)),
            [0.5050000004470349, -1.0000000003725291, 1.944999995827675],
        );
        let o = Sgd { weight_decay: 0.01, maximize: true, ..SGD };
        check(
            three_steps(style, |_, g, p, []| sgd(&o, g, p, None, false)),
            [0.49352150905326336, -0.9969680186269497, 2.0488860321675584],
        );
        let o = Sgd { momentum: 0.9, dampening: 0.2, weight_decay: 0.01, ..SGD };
        check(
            three_steps(style, |i, g, p, [b]| sgd(&o, g, p, Some(b), i == 1)),
            [0.5111916337822406, -0.9604312663433011, 1.8455769321937778],
        );
        let o = Sgd { momentum: 0.9, nesterov: true, ..SGD };
        check(
            three_steps(style, |i, g, p, [b]| sgd(&o, g, p, Some(b), i == 1)),
            [0.526510001102835, -0.9732700003094972, 1.8007299883067607],
        );

        check(
            three_steps(style, |i, g, p, [m, v]| adam(&ADAM, i, g, p, m, v, None)),
            [0.4597938751729382, -0.8613270304027146, 1.7669072350723112],
        );
        let o = Adam { betas: [0.8, 0.7], eps: 1e-3, weight_decay: 0.05, ..ADAM };
        check(
            three_steps(style, |i, g, p, [m, v, x]| adam(&o, i, g, p, m, v, Some(x))),
            [0.4452107502230533, -0.8325554154306045, 1.761759359117704],
        );
        let o = Adam { weight_decay: 0.05, decoupled: true, ..ADAM };
        check(
            three_steps(style, |i, g, p, [m, v]| adam(&o, i, g, p, m, v, None)),
            [0.4530490608357626, -0.8476341394223375, 1.7385370760417997],
        );
        let o = Adam { betas: [0.4, 0.9], maximize: true, ..o };
        check(
            three_steps(style, |i, g, p, [m, v]| adam(&o, i, g, p, m, v, None)),
            [0.5298973753209894, -1.0381397301698776, 2.1662888290479794],
        );

        let o = Adadelta { lr: 0.5, rho: 0.8, eps: 1e-3, weight_decay: 0.01, maximize: false };
        check(
            three_steps(style, |_, g, p, [s, d]| adadelta(&o, g, p, s, d)),
            [0.47937175188393966, -1.004604246053943, 1.9515510912568146],
        );

        let o = RmsProp { eps: 1e-3, ..RMS };
        check(
            three_steps(style, |_, g, p, [s]| rms_prop(&o, g, p, s, None, None)),
            [0.32930886258246317, -0.9638271454677232, 1.5556134696309147],
        );
        let o = RmsProp { momentum: 0.5, weight_decay: 0.01, ..RMS };
        check(
            three_steps(style, |_, g, p, [s, b]| rms_prop(&o, g, p, s, None, Some(b))),
            [0.23430930907060704, -0.7359646481979216, 1.1663698361599695],
        );
        check(
            three_steps(style, |_, g, p, [s, m]| rms_prop(&RMS, g, p, s, Some(m), None)),
            [0.31280821116550406, -0.9476863110680603, 1.5091685783809115],
        );
        let o = RmsProp { momentum: 0.5, maximize: true, ..RMS };
        check(
            three_steps(style, |_, g, p, [s, m, b]| rms_prop(&o, g, p, s, Some(m), Some(b))),
            [0.77877556587511, -1.2611079726873995, 2.8977919220784494],
        );

        let o = Adagrad { lr: 0.1, lr_decay: 0.1, eps: 1e-10, weight_decay: 0.01, maximize: false };
        check(
            three_steps(style, |i, g, p, [s]| adagrad(&o, i, g, p, s)),
            [0.4438518970617039, -0.9632348743071251, 1.8550704636136706],
        );
    }
}

#[test]
fn agrees_with_pytorch() {
    all::<f64>(1e-14);
    all::<f32>(2e-6);
}

#[test]
fn nothing_depends_on_threads_level_or_length() {
    let n = 300_007;
    let (g, p) = (noise32(n, 1), noise32(n, 2));
    let got = same_everywhere(|| {
        let (mut p, mut m, mut v) = (p.clone(), vec![0.1; n], vec![0.2; n]);
        let shape = [n];
        let o = Adam { weight_decay: 0.01, decoupled: true, ..ADAM };
        adam(
            &o,
            3,
            Src::of(&g, &shape, &[1]),
            Dst::of(&mut p, &shape, &[1]),
            Dst::of(&mut m, &shape, &[1]),
            Dst::of(&mut v, &shape, &[1]),
            None,
        );
        [p, m, v].concat()
    });
    // Each element is as if it were alone.
    for i in [0, 15, 16, 1000, n - 1] {
        let (mut p, mut m, mut v) = ([p[i]], [0.1], [0.2]);
        let o = Adam { weight_decay: 0.01, decoupled: true, ..ADAM };
        let (g, p_out) = (Src::of(&g[i..=i], &[], &[]), Dst::of(&mut p, &[], &[]));
        adam(&o, 3, g, p_out, Dst::of(&mut m, &[], &[]), Dst::of(&mut v, &[], &[]), None);
        assert_eq!([p[0], m[0], v[0]], [got[i], got[n + i], got[2 * n + i]]);
    }
    let none = Operand::<f32>::zeros(&[0, 3], 0);
    sgd(&SGD, none.src(), none.dst(), None, false);
}
