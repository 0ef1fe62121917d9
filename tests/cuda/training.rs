//! Training on a device takes the processor's steps.

use super::{device, finite, same};
use sinter::nn::{Layer, Linear, Module, functional as F};
use sinter::optim::{Adam, AdamW, Optimizer, RmsProp, Sgd};
use sinter::{Device, Tensor};

#[derive(Module)]
struct Net {
    first: Linear,
    second: Linear,
}

impl Net {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.second.forward(&self.first.forward(x).relu())
    }
}

fn net(on: Device) -> Net {
    sinter::manual_seed(5);
    Net { first: Linear::new(6, 9), second: Linear::new(9, 3) }.to(on)
}

fn train(on: Device, optimizer: impl Fn(&Net) -> Box<dyn Optimizer>) -> (Vec<f32>, Vec<Tensor>) {
    let net = net(on);
    let mut o = optimizer(&net);
    let (x, y) = (finite(&[5, 6], 1).to(on), finite(&[5, 3], 2).to(on));
    let mut losses = vec![];
    for _ in 0..3 {
        o.zero_grad();
        let loss = F::mse_loss(&net.forward(&x), &y, F::Reduction::Mean);
        loss.backward();
        o.step();
        losses.push(loss.item::<f32>());
    }
    (losses, net.parameters().iter().map(|p| p.detach()).collect())
}

#[test]
fn steps_of_the_processor() {
    type Make = fn(&Net) -> Box<dyn Optimizer>;
    let optimizers: [(&str, Make); 5] = [
        ("sgd", |n| Box::new(Sgd::new(n.parameters(), 0.1))),
        ("momentum", |n| Box::new(Sgd::new(n.parameters(), 0.1).momentum(0.9).nesterov(true))),
        ("adam", |n| Box::new(Adam::new(n.parameters(), 0.01))),
        ("adamw", |n| Box::new(AdamW::new(n.parameters(), 0.01))),
        ("rms_prop", |n| Box::new(RmsProp::new(n.parameters(), 0.01))),
    ];
    for (name, optimizer) in optimizers {
        let (losses, params) = train(Device::Cpu, optimizer);
        let (losses2, params2) = train(device(), optimizer);
        assert!(losses[2] < losses[0], "{name}: {losses:?}");
        for (a, b) in losses.iter().zip(&losses2) {
            assert!((a - b).abs() < 1e-4, "{name}: {losses:?} {losses2:?}");
        }
        for (a, b) in params.iter().zip(&params2) {
            assert_eq!(b.device(), device());
            same(b, a, 1e-4).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

#[test]
fn modules_move_whole() {
    let net = net(device());
    assert!(net.parameters().iter().all(|p| p.device() == device() && p.requires_grad()));
    let state = net.state_dict();
    let back = net.to(Device::Cpu);
    assert!(back.parameters().iter().all(|p| p.device() == Device::Cpu && p.is_leaf()));
    for (name, t) in back.state_dict() {
        same(&state[&name], &t, 0.0).unwrap();
    }
}

#[test]
fn what_is_shared_stays_shared() {
    #[derive(Module)]
    struct Tied {
        a: Linear,
        b: Vec<sinter::nn::Param>,
    }
    let a = Linear::new(2, 2);
    let weight = a.parameters()[0].clone();
    let tied = Tied { a, b: vec![weight] }.to(device());
    assert!(tied.a.parameters()[0].is_same(&tied.b[0]));
}
