//! Tensors on a device: made, moved, printed, changed in place, saved.

use super::{caught, device, finite, same, sample};
use sinter::{DType, Device, TensorOptions, tensor};

#[test]
fn there_and_back() {
    for d in DType::ALL {
        let x = sample(&[3, 4, 5], d, 1);
        for view in [x.clone(), x.permute([2, 0, 1]), x.narrow(1, 1, 2), x.flip([0, 2])] {
            let y = view.to(device());
            assert_eq!((y.device(), y.dtype(), y.shape()), (device(), d, view.shape()));
            same(&y.to(Device::Cpu), &view, 0.0).unwrap();
        }
        // Views are made there, without copies.
        let y = x.to(device());
        let there = y.permute([2, 0, 1]).narrow(1, 1, 2).flip([0]);
        assert!(there.shares_storage(&y));
        same(&there.to(Device::Cpu), &x.permute([2, 0, 1]).narrow(1, 1, 2).flip([0]), 0.0).unwrap();
    }
    let x = finite(&[2], 1).to(device());
    assert!(x.to(device()).is_same(&x));
    assert_eq!(finite(&[0, 2], 1).to(device()).to_vec::<f32>(), Vec::<f32>::new());
}

#[test]
fn values_come_out() {
    let x = tensor([[1.5f32, -2.0]]).to(device());
    assert_eq!(x.to_vec::<f64>(), [1.5, -2.0]);
    assert_eq!(x.select(1, 1).item::<f32>(), -2.0);
    assert_eq!(format!("{x}"), "tensor([[ 1.5000, -2.0000]], device=cuda:0)");
    let host = caught(|| x.array().src::<f32>().to_vec()).unwrap_err();
    assert!(host.contains("the memory lies on a device"), "{host}");
}

#[test]
fn options_and_conversions() {
    let o = TensorOptions::new().device(device());
    let x = o.dtype(DType::F64).requires_grad(true).ones([2, 3]);
    assert!(x.device() == device() && x.dtype() == DType::F64 && x.is_leaf());
    let y = tensor([1.5f32, 2.5]).to((device(), DType::I64));
    assert_eq!((y.device(), y.to_vec::<i64>()), (device(), vec![1, 2]));
    let back = y.to((Device::Cpu, DType::F32));
    assert_eq!((back.device(), back.to_vec::<f32>()), (Device::Cpu, vec![1.0, 2.0]));
    sinter::manual_seed(7);
    let r = sinter::randn_like(&x);
    sinter::manual_seed(7);
    same(&r, &sinter::randn_like(&x.to(Device::Cpu)), 0.0).unwrap();
    assert_eq!(r.device(), device());
}

#[test]
fn changes_in_place() {
    let run = |on: Device| {
        let x = finite(&[4, 6], 1).to(on);
        x.add_(finite(&[6], 2).to(on)).mul_(2.0);
        x.select(0, 1).copy_(&finite(&[6], 3));
        x.t().sub_(finite(&[6, 4], 4).to(on));
        // Operand and result overlap.
        x.narrow(1, 0, 5).add_(x.narrow(1, 1, 5).copy());
        x.narrow(0, 0, 2).fill_(0.25);
        x.neg_();
        x
    };
    same(&run(device()), &run(Device::Cpu), 0.0).unwrap();
}

#[test]
fn devices_do_not_mix() {
    let (x, y) = (finite(&[3], 1), finite(&[3], 2).to(device()));
    let e = caught(|| &x + &y).unwrap_err();
    assert!(e.contains("add: operands lie on cpu and cuda:0"), "{e}");
    let e = caught(|| y.matmul(&x)).unwrap_err();
    assert!(e.contains("operands lie on cuda:0 and cpu"), "{e}");
    let e = caught(|| x.copy().add_(&y).clone()).unwrap_err();
    assert!(e.contains("lie on"), "{e}");
    // Numbers go with any device.
    same(&(&y * tensor(2.0f32)), &(finite(&[3], 2) * 2.0), 0.0).unwrap();
    same(&(tensor(2.0f32) - &y), &(tensor(2.0f32) - finite(&[3], 2)), 0.0).unwrap();
}

#[test]
fn an_op_without_code_says_so() {
    let x = finite(&[3], 1).to(device());
    let e = caught(|| x.sin()).unwrap_err();
    assert!(e.starts_with("sin: not supported: no code for cuda:0: on f32, "), "{e}");
    let e = caught(|| x.cumsum(0)).unwrap_err();
    assert!(e.contains("no code for cuda:0: there is no kernel for it yet"), "{e}");
}

#[test]
fn saved_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let x = finite(&[3, 4], 1);
    let named = [("x".to_string(), x.to(device()).t())];
    sinter::io::safetensors::save(&path, named.iter().map(|(n, t)| (n, t)), &Default::default())
        .unwrap();
    let read = sinter::io::safetensors::load(&path).unwrap();
    same(&read["x"], &x.t().contiguous(), 0.0).unwrap();
}

#[test]
fn traces_refuse_tensors_of_devices() {
    let w = finite(&[3], 1).to(device());
    let e = caught(|| sinter::trace::trace("t", |x| vec![&x[0] * &w], &[&finite(&[3], 2)], &[]))
        .unwrap_err();
    assert!(e.contains("compiled programs run on the processor"), "{e}");
}
