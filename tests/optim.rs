//! Optimizers and schedules, step by step, against PyTorch.

use sinter::nn::{Param, StateDict};
use sinter::optim::*;
use sinter::{Tensor, ones, tensor, zeros};
use sinter_tests::{Table, Tolerance, compare};

fn optimizer(name: &str, p: Vec<Param>) -> Box<dyn Optimizer> {
    match name {
        "sgd" => Box::new(Sgd::new(p, 0.1)),
        "sgd momentum" => Box::new(Sgd::new(p, 0.1).momentum(0.9)),
        "sgd momentum dampening weight_decay" => {
            Box::new(Sgd::new(p, 0.1).momentum(0.9).dampening(0.3).weight_decay(0.05))
        }
        "sgd nesterov" => Box::new(Sgd::new(p, 0.1).momentum(0.9).nesterov(true)),
        "sgd maximize" => Box::new(Sgd::new(p, 0.1).maximize(true)),
        "adam" => Box::new(Adam::new(p, 0.05)),
        "adam weight_decay betas eps" => {
            Box::new(Adam::new(p, 0.05).betas([0.8, 0.95]).eps(1e-3).weight_decay(0.05))
        }
        "adamw" => Box::new(AdamW::new(p, 0.05)),
        "adamw weight_decay" => Box::new(AdamW::new(p, 0.05).weight_decay(0.2)),
        "adadelta" => Box::new(Adadelta::new(p, 1.0)),
        "adadelta rho weight_decay" => {
            Box::new(Adadelta::new(p, 0.7).rho(0.8).eps(1e-4).weight_decay(0.05))
        }
        "rms_prop" => Box::new(RmsProp::new(p, 0.05)),
        "rms_prop momentum weight_decay" => {
            Box::new(RmsProp::new(p, 0.05).momentum(0.6).weight_decay(0.05))
        }
        "adagrad" => Box::new(Adagrad::new(p, 0.1)),
        "adagrad lr_decay" => Box::new(Adagrad::new(p, 0.1).lr_decay(0.2).weight_decay(0.05)),
        other => panic!("no optimizer `{other}`"),
    }
}

#[test]
fn steps_are_those_of_pytorch() {
    let mut wrong = Vec::new();
    for case in Table::load("optimizers").cases {
        let tensors = case.tensors();
        let p = Param::new(tensors[0].copy());
        let mut opt = optimizer(&case.what, vec![p.clone()]);
        for (i, (g, want)) in tensors[1..].iter().zip(&case.outputs).enumerate() {
            // Half-way, the state goes through a file's worth of tensors.
            if i == 3 {
                let state: StateDict =
                    opt.state_dict().into_iter().map(|(n, t)| (n, t.copy())).collect();
                opt = optimizer(&case.what, vec![p.clone()]);
                opt.load_state_dict(&state).unwrap();
            }
            p.set_grad(Some(g.clone()));
            opt.step();
            let near = Tolerance { one: 8.0, ..Tolerance::units(16.0) };
            if let Some(e) = compare(p.array(), want, near) {
                wrong.push(format!("{}, step {}: {e}", case.describe(), i + 1));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn schedules_are_those_of_pytorch() {
    for case in Table::load("schedules").cases {
        fn rates(schedule: impl Schedule) -> Tensor {
            let mut opt = Sgd::new(vec![], 0.2);
            let mut s = LrScheduler::new(&opt, schedule);
            let mut seen = Vec::new();
            for _ in 0..10 {
                seen.push(opt.lrs().first().copied().expect("a group"));
                s.step(&mut opt);
            }
            tensor(seen)
        }
        let got = match case.what.as_str() {
            "step" => rates(StepLr { size: 3, gamma: 0.5 }),
            "multi_step" => rates(MultiStep { milestones: vec![2, 5, 7], gamma: 0.1 }),
            "exponential" => rates(Exponential { gamma: 0.9 }),
            // The floor is a factor here, a rate there.
            "cosine" => rates(CosineAnnealing { steps: 10, floor: 0.1 }),
            "lambda" => rates(LambdaLr(|n| 1.0 / (1.0 + n as f64))),
            other => panic!("no schedule `{other}`"),
        };
        let e = compare(got.array(), &case.outputs[0], Tolerance::units(16.0));
        assert!(e.is_none(), "{}: {}", case.what, e.unwrap());
    }
}

#[test]
fn groups_have_their_own_options() {
    let (a, b) = (Param::new(ones([2])), Param::new(ones([2])));
    let mut opt = Sgd::new(vec![a.clone()], 0.5).join(Sgd::new(vec![b.clone()], 0.25));
    for p in [&a, &b] {
        p.set_grad(Some(ones([2])));
    }
    opt.step();
    assert_eq!((a.to_vec::<f32>(), b.to_vec::<f32>()), (vec![0.5; 2], vec![0.75; 2]));
    opt.set_lrs(&[0.0, 1.0]);
    opt.step();
    assert_eq!((a.to_vec::<f32>(), b.to_vec::<f32>()), (vec![0.5; 2], vec![-0.25; 2]));
    opt.zero_grad();
    assert!(a.grad().is_none());
    opt.step();
    assert_eq!(a.to_vec::<f32>(), [0.5; 2]);
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let make = || Adam::new(vec![Param::new(ones([2]))], 0.1);
    let p = Param::new(ones([2]));
    p.set_grad(Some(ones([2])));
    let mut opt = Adam::new(vec![p], 0.1);
    opt.step();
    let good = opt.state_dict();
    assert!(make().load_state_dict(&good).is_ok());
    for key in good.keys() {
        let mut less = good.clone();
        less.remove(key);
        if !key.ends_with("step") {
            assert!(make().load_state_dict(&less).is_err(), "without {key}");
        }
        let mut other = good.clone();
        other.insert(key.clone(), zeros([3, 3]));
        assert!(make().load_state_dict(&other).is_err(), "another {key}");
    }
    let mut more = good.clone();
    more.insert("7.lr".into(), zeros([1]));
    assert!(make().load_state_dict(&more).is_err());
}

#[test]
fn a_step_counts_as_a_change_in_place() {
    let p = Param::new(ones([2]));
    let y = (p.tensor() * p.tensor()).sum();
    y.backward();
    let mut opt = Sgd::new(vec![p.clone()], 0.1);
    let y = (p.tensor() * p.tensor()).sum();
    opt.step();
    let e = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| y.backward())).unwrap_err();
    let text = e.downcast_ref::<String>().expect("a message");
    assert!(text.contains("`sgd`") && text.contains("optim.rs"), "{text}");
}
