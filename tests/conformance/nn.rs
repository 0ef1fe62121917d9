//! `nn.functional`.

use crate::args::{Args, Value, skip};
use crate::registry::Registry;
use sinter::nn::functional::{self as F, BagMode, ClassLoss, Reduction, RunningStats};
use sinter::{DType, Tensor, stack};
use sinter_tests::Tolerance;

pub const INTS: &[DType] = &[DType::I64, DType::I32, DType::U8, DType::I8];
pub const INTEGERS: &str = "integers: it is for floating-point numbers";
const TRUTH: &str = "truth values are no numbers";

fn reduction(a: &Args) -> Reduction {
    match a.str_or("reduction", "mean") {
        "mean" => Reduction::Mean,
        "sum" => Reduction::Sum,
        "none" => Reduction::None,
        other => panic!("reduction {other}"),
    }
}

fn activations(r: &mut Registry) {
    r.op("nn.functional.relu", |a| a.t(0).relu());
    r.op("nn.functional.silu", |a| a.t(0).silu());
    r.op("nn.functional.gelu", |a| match a.str_or("approximate", "none") {
        "none" => a.t(0).gelu(),
        _ => a.t(0).gelu_tanh(),
    })
    .within(Tolerance { one: 8.0, ..Tolerance::units(8.0) }); // cancels for negative x
    r.op("nn.functional.celu", |a| F::celu(&a.t(0), a.f64_or("alpha", 1.0))).half(4.0);
    r.op("nn.functional.elu", |a| F::elu(&a.t(0), a.f64_or("alpha", 1.0))).half(4.0);
    r.op("nn.functional.selu", |a| F::selu(&a.t(0))).half(4.0);
    r.op("nn.functional.glu", |a| F::glu(&a.t(0), a.i64_or((1, "dim"), -1))).half(4.0);
    r.op("nn.functional.hardshrink", |a| F::hardshrink(&a.t(0), a.f64_or("lambd", 0.5)));
    r.op("nn.functional.softshrink", |a| F::softshrink(&a.t(0), a.f64_or("lambd", 0.5)));
    r.op("nn.functional.hardsigmoid", |a| F::hardsigmoid(&a.t(0)))
        .half(4.0)
        .no_gradient("PyTorch has a sixth in f32");
    r.op("nn.functional.hardswish", |a| F::hardswish(&a.t(0))).half(4.0);
    r.op("nn.functional.hardtanh", |a| {
        F::hardtanh(&a.t(0), a.f64_or("min_val", -1.0), a.f64_or("max_val", 1.0))
    })
    .without(&[DType::U8], "bounds that the type cannot hold");
    r.op("nn.functional.leaky_relu", |a| {
        F::leaky_relu(&a.t(0), a.f64_or((1, "negative_slope"), 0.01))
    });
    r.op("nn.functional.logsigmoid", |a| F::logsigmoid(&a.t(0)));
    r.op("nn.functional.mish", |a| F::mish(&a.t(0))).half(4.0);
    r.op("nn.functional.prelu", |a| F::prelu(&a.t(0), &a.t((1, "weight"))));
    r.op("nn.functional.relu6", |a| F::relu6(&a.t(0)));
    r.op("nn.functional.threshold", |a| {
        F::threshold(&a.t(0), a.scalar((1, "threshold")), a.scalar((2, "value")))
    });
    r.op("nn.functional.softsign", |a| F::softsign(&a.t(0))).half(4.0);
    r.op("nn.functional.tanhshrink", |a| F::tanhshrink(&a.t(0)))
        .half(4.0)
        .within(Tolerance { one: 2.0, ..Tolerance::units(8.0) }); // cancels near zero
    r.op("nn.functional.softplus", |a| {
        F::softplus(&a.t(0), a.f64_or("beta", 1.0), a.f64_or("threshold", 20.0))
    })
    .half(4.0);
    let softmin = |a: &Args| {
        let x = a.t(0);
        F::softmin(&x.to_dtype(a.opt_dtype("dtype").unwrap_or(x.dtype())), a.i64(1))
    };
    r.op("nn.functional.softmin", softmin);
    r.op("nn.functional.softmin.with_dtype", softmin);
    r.op("nn.functional.rrelu", |a| {
        let (lower, upper) = (a.f64_or("lower", 0.125), a.f64_or("upper", 1.0 / 3.0));
        F::rrelu(&a.t(0), lower, upper, a.bool_or("training", false))
    });
    r.op("nn.functional.normalize", |a| {
        F::normalize(&a.t(0), a.f64_or("p", 2.0), a.i64_or("dim", 1), a.f64_or("eps", 1e-12))
    })
    .half(6.0);
}

fn losses(r: &mut Registry) {
    r.op("nn.functional.mse_loss", |a| F::mse_loss(&a.t(0), &a.t(1), reduction(a))).half(8.0);
    r.op("nn.functional.l1_loss", |a| F::l1_loss(&a.t(0), &a.t(1), reduction(a))).half(8.0);
    r.op("nn.functional.smooth_l1_loss", |a| {
        F::smooth_l1_loss(&a.t(0), &a.t(1), a.f64_or("beta", 1.0), reduction(a))
    })
    .half(8.0);
    r.op("nn.functional.huber_loss", |a| {
        F::huber_loss(&a.t(0), &a.t(1), a.f64_or("delta", 1.0), reduction(a))
    })
    .half(8.0);
    r.op("nn.functional.binary_cross_entropy", |a| {
        F::binary_cross_entropy(&a.t(0), &a.t(1), a.opt_t("weight").as_ref(), reduction(a))
    })
    .half(16.0);
    r.op("nn.functional.binary_cross_entropy_with_logits", |a| {
        let (w, p) = (a.opt_t("weight"), a.opt_t("pos_weight"));
        F::weighted_binary_cross_entropy_with_logits(
            &a.t(0),
            &a.t(1),
            w.as_ref(),
            p.as_ref(),
            reduction(a),
        )
    })
    .half(16.0);
    r.op("nn.functional.poisson_nll_loss", |a| {
        let (log, full) = (a.bool_or("log_input", true), a.bool_or("full", false));
        F::poisson_nll_loss(&a.t(0), &a.t(1), log, full, a.f64_or("eps", 1e-8), reduction(a))
    })
    .half(16.0);
    r.op("nn.functional.gaussian_nll_loss", |a| {
        let (full, eps) = (a.bool_or("full", false), a.f64_or("eps", 1e-6));
        F::gaussian_nll_loss(&a.t(0), &a.t(1), &a.t(2), full, eps, reduction(a))
    })
    .half(16.0);
    r.op("nn.functional.kl_div", |a| {
        let log = a.bool_or("log_target", false);
        if a.str_or("reduction", "mean") == "batchmean" {
            let n = a.t(0).shape().first().copied().unwrap_or(1) as f64;
            return F::kl_div(&a.t(0), &a.t(1), log, Reduction::Sum) / n;
        }
        F::kl_div(&a.t(0), &a.t(1), log, reduction(a))
    })
    .half(16.0);
    r.op("nn.functional.soft_margin_loss", |a| F::soft_margin_loss(&a.t(0), &a.t(1), reduction(a)))
        .half(8.0);
    r.op("nn.functional.margin_ranking_loss", |a| {
        let margin = a.f64_or("margin", 0.0);
        F::margin_ranking_loss(&a.t(0), &a.t(1), &a.t(2), margin, reduction(a))
    })
    .half(8.0);
    r.op("nn.functional.hinge_embedding_loss", |a| {
        F::hinge_embedding_loss(&a.t(0), &a.t(1), a.f64_or("margin", 1.0), reduction(a))
    })
    .half(8.0);
    r.op("nn.functional.cosine_embedding_loss", |a| {
        let margin = a.f64_or("margin", 0.0);
        F::cosine_embedding_loss(&a.t(0), &a.t(1), &a.t(2), margin, reduction(a))
    })
    .half(16.0)
    .without(&[DType::Bool], TRUTH);
    r.op("nn.functional.triplet_margin_loss", |a| {
        let (margin, p) = (a.f64_or("margin", 1.0), a.f64_or("p", 2.0));
        let (eps, swap) = (a.f64_or("eps", 1e-6), a.bool_or("swap", false));
        F::triplet_margin_loss(&a.t(0), &a.t(1), &a.t(2), margin, p, eps, swap, reduction(a))
    })
    .half(16.0);
    r.op("nn.functional.triplet_margin_with_distance_loss", |a| {
        let (margin, swap) = (a.f64_or("margin", 1.0), a.bool_or("swap", false));
        let cosine = match a.get("distance_function") {
            Value::None => false,
            Value::Other(name) if name.contains("PairwiseDistance") => false,
            Value::Other(name) if name.contains("CosineSimilarity") => true,
            _ => skip("a distance that is a Python function"),
        };
        let distance = move |x: &Tensor, y: &Tensor| {
            if cosine {
                F::cosine_similarity(x, y, 1, 1e-8)
            } else {
                F::pairwise_distance(x, y, 2.0, 1e-6, false)
            }
        };
        F::triplet_margin_with_distance_loss(
            &a.t(0),
            &a.t(1),
            &a.t(2),
            distance,
            margin,
            swap,
            reduction(a),
        )
    })
    .half(16.0);
    r.op("nn.functional.multilabel_soft_margin_loss", |a| {
        let w = a.opt_t("weight");
        F::multilabel_soft_margin_loss(&a.t(0), &a.t(1), w.as_ref(), reduction(a))
    })
    .half(16.0);
    r.op("nn.functional.multi_margin_loss", |a| {
        let (p, margin) = (a.i64_or("p", 1) as i32, a.f64_or("margin", 1.0));
        let w = a.opt_t("weight");
        F::multi_margin_loss(&a.t(0), &a.t(1), p, margin, w.as_ref(), reduction(a))
    });
    r.op("nn.functional.multilabel_margin_loss", |a| {
        F::multilabel_margin_loss(&a.t(0), &a.t(1), reduction(a))
    });
    r.op("nn.functional.nll_loss", |a| {
        let w = a.opt_t((2, "weight"));
        let options = ClassLoss {
            weight: w.as_ref(),
            ignore_index: a.i64_or("ignore_index", -100),
            label_smoothing: 0.0,
            reduction: reduction(a),
        };
        F::nll_loss_with(&a.t(0), &a.t(1), &options)
    })
    .half(16.0);
    r.op("nn.functional.cross_entropy", |a| {
        let w = a.opt_t("weight");
        F::cross_entropy_with(&a.t(0), &a.t(1), &class_loss(a, w.as_ref()))
    })
    .half(16.0)
    .within(Tolerance { one: 4.0, ..Tolerance::units(16.0) }); // a difference of logarithms
    for (name, of) in [
        ("nn.functional.linear_cross_entropy", "linear and cross_entropy"),
        ("nn.functional.linear_cross_entropy.chunked", "linear and cross_entropy, in one piece"),
        (
            "nn.functional.linear_cross_entropy.chunked_none",
            "linear and cross_entropy, in one piece",
        ),
    ] {
        r.composite(name, of, |a| {
            a.ignore("options"); // how the work is cut into pieces
            let x = a.t(0);
            if x.rank() > 2 || a.t(1).rank() > 2 {
                skip("classes with further dimensions");
            }
            let w = a.opt_t("weight");
            let logits = F::linear(&x, &a.t(1), a.opt_t("linear_bias").as_ref());
            F::cross_entropy_with(&logits, &a.t(2), &class_loss(a, w.as_ref()))
        })
        .half(32.0);
    }
    r.op("nn.functional.ctc_loss", |a| {
        let lengths = |key: (usize, &'static str)| a.sizes(key);
        F::ctc_loss(
            &a.t(0),
            &a.t(1),
            &lengths((2, "input_lengths")),
            &lengths((3, "target_lengths")),
            a.i64_or("blank", 0) as usize,
            a.bool_or("zero_infinity", false),
            reduction(a),
        )
    })
    // Sums over all alignments, in another order.
    .within(Tolerance { own: 64.0, largest: 64.0, one: 0.0 })
    .no_gradient("PyTorch gives that of what the softmax before it was of");
}

fn class_loss<'a>(a: &Args, weight: Option<&'a Tensor>) -> ClassLoss<'a> {
    ClassLoss {
        weight,
        ignore_index: a.i64_or("ignore_index", -100),
        label_smoothing: a.f64_or("label_smoothing", 0.0),
        reduction: reduction(a),
    }
}

fn distances(r: &mut Registry) {
    r.op("nn.functional.pairwise_distance", |a| {
        let (p, eps) = (a.f64_or("p", 2.0), a.f64_or("eps", 1e-6));
        F::pairwise_distance(&a.t(0), &a.t(1), p, eps, a.bool_or("keepdim", false))
    })
    .half(8.0);
    r.op("nn.functional.cosine_similarity", |a| {
        F::cosine_similarity(&a.t(0), &a.t(1), a.i64_or("dim", 1), a.f64_or("eps", 1e-8))
    })
    .half(8.0);
    r.op("nn.functional.pdist", |a| F::pdist(&a.t(0), a.f64_or((1, "p"), 2.0)));
}

fn stats<'a>(mean: &'a Option<Tensor>, var: &'a Option<Tensor>) -> Option<RunningStats<'a>> {
    Some(RunningStats { mean: mean.as_ref()?, var: var.as_ref()? })
}

fn normalisations(r: &mut Registry) {
    // Statistics and normalisation, each with the roundings of its sums.
    let near = Tolerance { own: 16.0, largest: 16.0, one: 0.0 };
    r.op("nn.functional.layer_norm", |a| {
        let (w, b) = (a.opt_t((2, "weight")), a.opt_t((3, "bias")));
        F::layer_norm(&a.t(0), a.sizes(1).len(), w.as_ref(), b.as_ref(), a.f64_or("eps", 1e-5))
    })
    .within(near)
    .half(8.0);
    r.op("nn.functional.rms_norm", |a| {
        let x = a.t(0);
        let own = match x.dtype() {
            DType::F64 | DType::C128 => f64::EPSILON,
            _ => f32::EPSILON.into(),
        };
        let w = a.opt_t((2, "weight"));
        F::rms_norm(&x, a.sizes(1).len(), w.as_ref(), a.f64_or("eps", own))
    })
    .within(near)
    .half(8.0);
    r.op("nn.functional.group_norm", |a| {
        let (w, b) = (a.opt_t("weight"), a.opt_t("bias"));
        F::group_norm(&a.t(0), a.usize(1), w.as_ref(), b.as_ref(), a.f64_or("eps", 1e-5))
    })
    .within(near)
    .half(16.0);
    r.op("nn.functional.instance_norm", |a| {
        let (w, b) = (a.opt_t("weight"), a.opt_t("bias"));
        let (mean, var) = (a.opt_t("running_mean"), a.opt_t("running_var"));
        let (mean, var) = (mean.map(|t| t.copy()), var.map(|t| t.copy()));
        F::instance_norm(
            &a.t(0),
            stats(&mean, &var),
            w.as_ref(),
            b.as_ref(),
            a.bool_or("use_input_stats", true),
            a.f64_or("momentum", 0.1),
            a.f64_or("eps", 1e-5),
        )
    })
    .within(near)
    .half(16.0);
    r.op("nn.functional.batch_norm", |a| {
        let (mean, var) = (a.opt_t((1, "running_mean")), a.opt_t((2, "running_var")));
        let (mean, var) = (mean.map(|t| t.copy()), var.map(|t| t.copy()));
        let (w, b) = (a.opt_t((3, "weight")), a.opt_t((4, "bias")));
        if a.t(0).rank() < 2 {
            skip("batches without a dimension of channels");
        }
        F::batch_norm(
            &a.t(0),
            stats(&mean, &var),
            w.as_ref(),
            b.as_ref(),
            a.bool_or("training", false),
            a.f64_or("momentum", 0.1),
            a.f64_or("eps", 1e-5),
        )
    })
    .within(near)
    .half(16.0);
    r.op("nn.functional.local_response_norm", |a| {
        let (alpha, beta) = (a.f64_or("alpha", 1e-4), a.f64_or("beta", 0.75));
        F::local_response_norm(&a.t(0), a.usize(1), alpha, beta, a.f64_or("k", 1.0))
    })
    .half(8.0)
    .without(INTS, INTEGERS);
    r.op("nn.functional.linear", |a| {
        if a.t(1).rank() != 2 {
            skip("a weight that is a vector");
        }
        F::linear(&a.t(0), &a.t(1), a.opt_t(2).as_ref())
    })
    .half(4.0);
    r.op("nn.functional.bilinear", |a| F::bilinear(&a.t(0), &a.t(1), &a.t(2), a.opt_t(3).as_ref()))
        .half(16.0)
        .without(INTS, INTEGERS);
}

fn tables(r: &mut Registry) {
    r.op("nn.functional.embedding", |a| {
        if a.has("max_norm") {
            skip("rows that are normalised in the table itself");
        }
        if a.bool_or("scale_grad_by_freq", false) {
            skip("gradients scaled by how often a row is picked");
        }
        a.ignore("norm_type");
        a.ignore("sparse");
        match a.opt_i64("padding_idx") {
            None => F::embedding(&a.t(1), &a.t(0)),
            Some(p) => F::padded_embedding(&a.t(1), &a.t(0), p),
        }
    });
    r.op("nn.functional.embedding_bag", |a| {
        if a.has("max_norm") {
            skip("rows that are normalised in the table itself");
        }
        if a.bool_or("scale_grad_by_freq", false) {
            skip("gradients scaled by how often a row is picked");
        }
        a.ignore("sparse");
        a.ignore("norm_type");
        let mode = match a.str_or("mode", "mean") {
            "sum" => BagMode::Sum,
            "mean" => BagMode::Mean,
            _ => BagMode::Max,
        };
        let (weight, mut index) = (a.t(0), a.t(1));
        let mut scale = a.opt_t("per_sample_weights");
        let mut offsets: Vec<usize> = match a.opt_t("offsets") {
            Some(o) => o.to_vec::<i64>().iter().map(|&o| o as usize).collect(),
            None => (0..index.size(0)).map(|i| i * index.size(1)).collect(),
        };
        if a.bool_or("include_last_offset", false) {
            offsets.pop();
        }
        index = index.reshape([-1]);
        scale = scale.map(|s| s.reshape([-1]));
        F::embedding_bag(&index, &weight, &offsets, mode, scale.as_ref(), a.opt_i64("padding_idx"))
    })
    .half(8.0);
    r.op("nn.functional.one_hot", |a| {
        let n = a.i64_or((1, "num_classes"), -1);
        F::one_hot(&a.t(0), (n >= 0).then_some(n as usize))
    });
}

fn attention(r: &mut Registry) {
    r.op("nn.functional.multi_head_attention_forward", |a| {
        if a.bool_or((13, "training"), true) && a.f64(10) > 0.0 {
            skip("dropout of attention");
        }
        a.ignore(3);
        a.ignore(10);
        let apart = a.bool_or("use_separate_proj_weight", false);
        let (bk, bv) = (a.opt_t(7), a.opt_t(8));
        let [q, k, v] = [a.t(0), a.t(1), a.t(2)];
        let single = q.rank() == 2;
        let batch = |t: &Tensor| if single { t.unsqueeze(1) } else { t.clone() };
        let (q, k, v) = (batch(&q), batch(&k), batch(&v));
        let e = a.t(11).size(0);
        let weights: Vec<Tensor> = if apart {
            ["q_proj_weight", "k_proj_weight", "v_proj_weight"].map(|n| a.t(n)).into()
        } else {
            a.t(5).split(e, 0)
        };
        let row = |t: &Tensor| t.reshape([1, 1, e]);
        let (bk, bv) = (bk.as_ref().map(row), bv.as_ref().map(row));
        let (in_bias, out_bias, mask) = (a.opt_t(6), a.opt_t(12), a.opt_t("attn_mask"));
        let padding = a.opt_t("key_padding_mask");
        let options = F::MultiHead {
            in_bias: in_bias.as_ref(),
            out_bias: out_bias.as_ref(),
            extra: bk.as_ref().zip(bv.as_ref()),
            zero: a.bool_or(9, false),
            key_padding: padding.as_ref(),
            mask: mask.as_ref(),
        };
        let projections = [&weights[0], &weights[1], &weights[2]];
        let (y, w) =
            F::multi_head_attention([&q, &k, &v], projections, &a.t(11), a.usize(4), &options);
        let w = w.mean_dim(1, false);
        if single { (y.squeeze(1), w.squeeze(0)) } else { (y, w) }
    })
    .half(16.0);
    r.op("nn.functional.scaled_dot_product_attention", |a| {
        if a.f64_or("dropout_p", 0.0) > 0.0 {
            skip("dropout of attention");
        }
        let (mut q, mut k, mut v) = (a.t(0), a.t(1), a.t(2));
        if a.bool_or("enable_gqa", false) {
            let times = q.size(-3) / k.size(-3);
            let again = |t: &Tensor| {
                let mut shape = t.shape().to_vec();
                let heads = shape.len() - 3;
                let copies = vec![t.clone(); times];
                shape[heads] *= times;
                stack(&copies.iter().collect::<Vec<_>>(), heads as i64 + 1).reshape(shape)
            };
            (k, v) = (again(&k), again(&v));
        }
        if let Some(s) = a.opt_f64("scale") {
            q = &q * (s * (q.size(-1) as f64).sqrt());
        }
        let mask = a.opt_t((3, "attn_mask"));
        F::scaled_dot_product_attention(&q, &k, &v, mask.as_ref(), a.bool_or("is_causal", false))
    })
    .half(8.0);
    for name in ["nn.functional.dropout", "nn.functional.alpha_dropout"] {
        let alpha = name.ends_with("alpha_dropout");
        r.op(name, move |a| {
            let (p, training) = (a.f64_or("p", 0.5), a.bool_or("training", !alpha));
            if alpha {
                F::alpha_dropout(&a.t(0), p, training)
            } else {
                F::dropout(&a.t(0), p, training)
            }
        })
        .real();
    }
    type OfChannels = fn(&Tensor, f64, bool) -> Tensor;
    let of_channels: [(&'static str, OfChannels); 4] = [
        ("nn.functional.dropout2d", F::dropout2d),
        ("nn.functional.dropout3d", F::dropout3d),
        ("nn.functional.feature_alpha_dropout.with_train", F::feature_alpha_dropout),
        ("nn.functional.feature_alpha_dropout.without_train", F::feature_alpha_dropout),
    ];
    for (name, f) in of_channels {
        r.op(name, move |a| {
            let training = a.bool_or("training", !name.contains("alpha"));
            f(&a.t(0), a.f64_or("p", 0.5), training)
        });
    }
}

/// PyTorch's inner functions, which give statistics beside the result.
fn inner(r: &mut Registry) {
    let near = Tolerance { own: 16.0, largest: 16.0, one: 0.0 };
    /// Mean and `1 / sqrt(var + eps)` over `dims`, which stay as ones.
    fn moments(x: &Tensor, dims: &[i64], eps: f64) -> (Tensor, Tensor) {
        (x.mean_dim(dims, true), (x.var_dim(dims, 0, true) + eps).rsqrt())
    }
    r.composite("native_layer_norm", "layer_norm, mean_dim and var_dim", |a| {
        let (x, n) = (a.t(0), a.sizes(1).len());
        let (w, b) = (a.opt_t(2), a.opt_t(3));
        let dims: Vec<i64> = (1..=n as i64).map(|d| -d).collect();
        let (mean, rstd) = moments(&x, &dims, a.f64(4));
        (F::layer_norm(&x, n, w.as_ref(), b.as_ref(), a.f64(4)), mean, rstd)
    })
    .within(near)
    .half(16.0);
    r.composite("native_group_norm", "group_norm, mean_dim and var_dim", |a| {
        let (x, groups) = (a.t(0), a.usize(6));
        for i in 3..6 {
            a.ignore(i);
        }
        let (w, b) = (a.opt_t(1), a.opt_t(2));
        let n = x.size(0);
        let flat = x.reshape([n, groups, x.numel() / (n * groups).max(1)]);
        let (mean, rstd) = moments(&flat, &[2], a.f64(7));
        let y = F::group_norm(&x, groups, w.as_ref(), b.as_ref(), a.f64(7));
        (y, mean.squeeze(2), rstd.squeeze(2))
    })
    .within(near)
    .half(16.0);
    for (name, stats_at) in
        [("native_batch_norm", 3), ("_native_batch_norm_legit", 3), ("_batch_norm_with_update", 3)]
    {
        r.composite(name, "batch_norm, mean_dim and var_dim", move |a| {
            let (x, w, b) = (a.t(0), a.opt_t(1), a.opt_t(2));
            // One form of the second has no running statistics.
            let without = matches!(a.get(stats_at), Value::Bool(_));
            let at = if without { stats_at } else { stats_at + 2 };
            let (mean, var) =
                if without { (None, None) } else { (a.opt_t(stats_at), a.opt_t(stats_at + 1)) };
            let (mean, var) = (mean.map(|t| t.copy()), var.map(|t| t.copy()));
            let update = name == "_batch_norm_with_update";
            // The one that always trains has no such argument.
            let at = if update { at - 1 } else { at };
            let training = update || a.bool_or(at, false);
            let (momentum, eps) = (a.f64(at + 1), a.f64(at + 2));
            if !training {
                skip("statistics of no batch, which are empty");
            }
            let dims: Vec<i64> = (0..x.rank() as i64).filter(|&d| d != 1).collect();
            let (m, s) = moments(&x, &dims, eps);
            let running = stats(&mean, &var);
            let y = F::batch_norm(&x, running, w.as_ref(), b.as_ref(), true, momentum, eps);
            let mut all = vec![y, m.reshape([-1]), s.reshape([-1])];
            if update {
                all.push(sinter::full([0], 0, DType::U8));
            }
            all
        })
        .within(near)
        .half(16.0);
    }
    r.composite("native_dropout_backward", "`g mask scale`", |a| {
        a.t(0) * a.t(1).to_dtype(a.t(0).dtype()) * a.f64(2)
    });
    r.composite("max_pool2d_with_indices_backward", "the gradient of max_pool2d", |a| {
        let x = a.t(0).detach().requires_grad_(true);
        a.ignore("return_indices");
        let window = a.extents((1, "kernel_size"), 1);
        let y = F::max_pool2d_with(&x, window, &crate::spatial::pool_options::<2>(a, true)).sum();
        sinter::grad(&[&y], &[&x], false)[0].clone().expect("it plays a part")
    })
    .no_gradient("it is one itself");
}

pub fn register(r: &mut Registry) {
    inner(r);
    activations(r);
    losses(r);
    distances(r);
    normalisations(r);
    tables(r);
    attention(r);
}
