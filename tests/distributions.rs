//! Distributions: PyTorch 2.15's densities, moments and divergences, and samples that have them.

use sinter::distributions::*;
use sinter::{DType, Tensor, manual_seed, set_default_dtype, tensor};

#[track_caller]
fn near(what: &str, got: &Tensor, want: &[f64]) {
    let got = got.to_vec::<f64>();
    assert_eq!(got.len(), want.len(), "{what}");
    for (g, w) in got.iter().zip(want) {
        let same = g == w || g.is_nan() && w.is_nan();
        assert!(same || (g - w).abs() <= 1e-9 * w.abs().max(1.0), "{what}: {got:?}, not {want:?}");
    }
}

/// Means and variances of many samples against those of the distribution.
fn samples(what: &str, d: &impl Distribution) {
    const N: usize = 20_000;
    let x = d.sample(&[N]).to_dtype(DType::F64);
    let event: Vec<usize> =
        [N].iter().chain(d.batch_shape()).chain(d.event_shape()).copied().collect();
    assert_eq!(x.shape(), event, "{what}");
    let (mean, variance) = (d.mean().to_vec::<f64>(), d.variance().to_vec::<f64>());
    let got = x.mean_dim(0, false).to_vec::<f64>();
    for ((g, m), v) in got.iter().zip(mean).zip(variance) {
        if m.is_finite() && v.is_finite() {
            let error = (v / N as f64).sqrt();
            assert!((g - m).abs() < 6.0 * error + 1e-12, "{what}: mean {g}, not {m} ± {error}");
        }
    }
}

#[test]
fn values_are_those_of_pytorch() {
    set_default_dtype(DType::F64);
    manual_seed(4);
    let (a, b) = (tensor([0.5, 1.3, 2.7]), tensor([1.1, 0.4, 3.2]));
    let (n, x) = (tensor([-0.3, 0.9, 2.0]), tensor([0.2, 1.7, 3.4]));
    let (u, k) = (tensor([0.15, 0.6, 0.85]), tensor([0.0, 2.0, 5.0]));
    let (p, bit) = (tensor([0.2, 0.55, 0.9]), tensor([1.0, 0.0, 1.0]));
    let w = tensor([[0.2, 0.3, 0.5], [0.1, 0.7, 0.2]]);
    let simplex = tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]);
    let one = tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]);
    let counts = tensor([[1.0, 1.0, 2.0], [0.0, 4.0, 0.0]]);
    let cov = tensor([[2.0, 0.3, -0.5], [0.3, 1.0, 0.2], [-0.5, 0.2, 1.5]]);
    let cov2 = cov.matmul(&cov);
    macro_rules! case {
        ($d:expr, $value:expr, $log_prob:expr, $mean:expr, $variance:expr, $entropy:expr) => {{
            let (what, d) = (stringify!($d), $d);
            near(what, &d.log_prob($value), &$log_prob);
            near(what, &d.mean(), &$mean);
            near(what, &d.variance(), &$variance);
            let entropy: &[f64] = &$entropy;
            if !entropy.is_empty() {
                near(what, &d.entropy(), entropy);
            }
            samples(what, &d);
        }};
    }
    macro_rules! kl {
        ($p:expr, $q:expr, $want:expr) => {
            near(concat!("KL of ", stringify!($p)), &kl_divergence(&$p, &$q), &$want)
        };
    }
    case!(
        Normal::new(&n, &b),
        &x,
        [-1.1175544981329646, -2.002647801330517, -2.1777924680103533],
        [-0.3, 0.9, 2.0],
        [1.2100000000000002, 0.16000000000000003, 10.240000000000002],
        [1.5142487130089977, 0.5026478013305177, 2.5820893430103533]
    );
    case!(
        Laplace::new(&n, &b),
        &x,
        [-1.2430028149097248, -1.77685644868579, -2.293797990365626],
        [-0.3, 0.9, 2.0],
        [2.4200000000000004, 0.32000000000000006, 20.480000000000004],
        [1.7884573603642702, 0.7768564486857903, 2.8562979903656265]
    );
    case!(
        Cauchy::new(&n, &b),
        &x,
        [-1.4278561417653206, -1.8378770664093453, -2.48301502778293],
        [f64::NAN, f64::NAN, f64::NAN],
        [f64::INFINITY, f64::INFINITY, f64::INFINITY],
        [2.6263344267736155, 1.6147335150951356, 3.694175056774972]
    );
    case!(
        Gumbel::new(&n, &b),
        &x,
        [-1.1845920532900613, -1.2190445513624573, -2.246299336233573],
        [0.33493723139168624, 1.1308862659606131, 3.847090127684905],
        [1.9903702208863543, 0.2631894506957162, 16.844124844525837],
        [1.6725258447058577, 0.6609249330273778, 2.740366474707214]
    );
    case!(
        LogNormal::new(&n, &b),
        &x,
        [-0.11333462145083706, -0.959636955247035, -3.3352849201673047],
        [1.3566250030062241, 2.664456241929417, 1236.450433465635],
        [4.331427051101918, 1.2318104225310595, 42806863400.927086],
        [1.2142487130089976, 1.4026478013305177, 4.582089343010353]
    );
    case!(
        Uniform::new(&n, &(&n + &b)),
        &x,
        [-0.09531017980432493, f64::NEG_INFINITY, -1.1631508098056809],
        [0.25, 1.1, 3.6],
        [0.10083333333333334, 0.013333333333333336, 0.8533333333333335],
        [0.09531017980432493, -0.916290731874155, 1.1631508098056809]
    );
    case!(
        Exponential::new(&b),
        &x,
        [-0.1246898201956751, -1.596290731874155, -9.71684919019432],
        [0.9090909090909091, 2.5, 0.3125],
        [0.8264462809917354, 6.249999999999999, 0.09765624999999999],
        [0.904689820195675, 1.916290731874155, -0.16315080980568086]
    );
    case!(
        HalfNormal::new(&b),
        &x,
        [-0.33763045806888703, -8.340750620770569, -1.953395287450408],
        [0.877673016883152, 0.3191538243211462, 2.5532305945691696],
        [0.4396900754352266, 0.05814083642118699, 3.7210135309559673],
        [0.8211015324490524, -0.1904993792294276, 1.888942162450408]
    );
    case!(
        HalfCauchy::new(&b),
        &x,
        [-0.5794160767993398, -2.48301502778293, -2.3703418652788173],
        [f64::INFINITY, f64::INFINITY, f64::INFINITY],
        [f64::INFINITY, f64::INFINITY, f64::INFINITY],
        [1.93318724621367, 0.9215863345351903, 3.0010278762150264]
    );
    case!(
        Weibull::new(&a, &b),
        &x,
        [0.3318508725546623, -2.4528878014909443, -1.4140185187668992],
        [0.48245624450552577, 4.320356261582195, 2.418264908946867],
        [0.19284323399457262, 184.1345217730075, 0.6880213317688023],
        [0.26401679099041464, 1.3128314989893468, 1.2269367328244063]
    );
    case!(
        Pareto::new(0.1, &b),
        &x,
        [0.9422861936224851, -2.580204320558812, -11.344978300588153],
        [1.0999999999999992, f64::INFINITY, 0.14545454545454548],
        [f64::INFINITY, f64::INFINITY, 0.005509641873278237],
        [-0.4888043637074615, 2.113705638880109, -2.1532359027997265]
    );
    case!(
        Gamma::new(&a, &b),
        &x,
        [0.06000910319451258, -1.60381466660989, -6.09389513342217],
        [0.45454545454545453, 3.25, 0.84375],
        [0.4132231404958677, 8.124999999999998, 0.26367187499999994],
        [-0.004700249890336239, 2.158873189026335, 0.6171383565644848]
    );
    case!(
        Chi2::new(&a),
        &x,
        [-0.3542308855124886, -1.8118177431556268, -2.0921863953357405],
        [0.5, 1.3, 2.7],
        [1.0, 2.6, 5.4],
        [-0.9394204447741763, 1.1890770571728249, 1.967781087646581]
    );
    case!(
        InverseGamma::new(&a, &b),
        &x,
        [-3.6105529843713877, -2.538742237018592, -2.7634589347698295],
        [f64::INFINITY, 1.3333333333333333, 1.8823529411764706],
        [f64::INFINITY, f64::INFINITY, 5.061789421651012],
        [4.112940161761159, 0.6646735030116246, 1.3498736381935657]
    );
    case!(
        Beta::new(&a, &b),
        &u,
        [0.2972238321315471, -0.38778395360629325, -1.1523794222112482],
        [0.3125, 0.7647058823529411, 0.4576271186440678],
        [0.08263221153846152, 0.06664103549916697, 0.0359716723080574],
        [-0.35471423271737823, -0.7643271169520881, -0.2670479117583273]
    );
    case!(
        StudentT::new(&a, &n, &b),
        &x,
        [-1.6652478638952732, -1.7982586793794129, -2.2995332794578225],
        [f64::NAN, 0.9, 2.0],
        [f64::NAN, f64::INFINITY, 39.497142857142855],
        [3.76203759590818, 1.3505409402113098, 2.9778113590255857]
    );
    case!(
        Dirichlet::new(&(&w * 10.0)),
        &simplex,
        [1.9824657755564021, -3.3038456508782943],
        [0.2, 0.3, 0.5, 0.1, 0.7, 0.2],
        [
            0.014545454545454545,
            0.019090909090909092,
            0.022727272727272728,
            0.008181818181818182,
            0.019090909090909092,
            0.014545454545454545
        ],
        [-1.4611820247291334, -2.1197984902935882]
    );
    case!(
        Bernoulli::new(&p),
        &bit,
        [-1.6094379124341003, -0.7985076962177717, -0.10536051565782628],
        [0.2, 0.55, 0.9],
        [0.16000000000000003, 0.2475, 0.08999999999999998],
        [0.5004024235381879, 0.6881388137135885, 0.3250829733914482]
    );
    case!(
        Geometric::new(&p),
        &k,
        [-1.6094379124341003, -2.194852393191164, -11.618285980628057],
        [4.0, 0.8181818181818181, 0.11111111111111116],
        [20.0, 1.4876033057851237, 0.12345679012345684],
        [2.5020121176909393, 1.2511614794792518, 0.36120330376827575]
    );
    case!(
        Poisson::new(&a),
        &k,
        [-0.5, -1.468418651624963, -2.521232877730629],
        [0.5, 1.3, 2.7],
        [0.5, 1.3, 2.7],
        []
    );
    case!(
        Binomial::new(6.0, &p),
        &k,
        [-1.3388613078852583, -1.6816545852801177, -1.03762820205512],
        [1.2000000000000002, 3.3000000000000003, 5.4],
        [0.9600000000000002, 1.4849999999999999, 0.5399999999999999],
        [1.3425774508710624, 1.6113084150326848, 1.0021106378624363]
    );
    case!(
        Categorical::new(&w),
        &tensor([2.0, 1.0]),
        [-std::f64::consts::LN_2, -0.35667494393873245],
        [f64::NAN, f64::NAN],
        [f64::NAN, f64::NAN],
        [1.0296530140645737, 0.8018185525433373]
    );
    case!(
        OneHotCategorical::new(&w),
        &one,
        [-std::f64::consts::LN_2, -0.35667494393873245],
        [0.2, 0.3, 0.5, 0.1, 0.7, 0.2],
        [
            0.16000000000000003,
            0.21,
            0.25,
            0.09000000000000001,
            0.21000000000000002,
            0.16000000000000003
        ],
        [1.0296530140645737, 0.8018185525433373]
    );
    case!(
        Multinomial::new(4, &w),
        &counts,
        [-1.7147984280919268, -1.4266997757549298],
        [0.8, 1.2, 2.0, 0.4, 2.8, 0.8],
        [
            0.6400000000000001,
            0.84,
            1.0,
            0.36000000000000004,
            0.8400000000000001,
            0.6400000000000001
        ],
        []
    );
    case!(
        MultivariateNormal::new(&n, &cov),
        &x,
        [-4.216117615806162],
        [-0.3, 0.9, 2.0],
        [2.0000000000000004, 1.0, 1.5000000000000002],
        [4.709935797624345]
    );
    kl!(
        Normal::new(&n, &b),
        Normal::new(&x, &a),
        [1.6315426396357302, 0.9153413868741904, 0.16686365181914295]
    );
    kl!(
        LogNormal::new(&n, &b),
        LogNormal::new(&x, &a),
        [1.6315426396357302, 0.9153413868741904, 0.16686365181914295]
    );
    kl!(
        HalfNormal::new(&b),
        HalfNormal::new(&a),
        [1.1315426396357302, 0.7259922744481551, 0.032432924795823354]
    );
    kl!(
        Laplace::new(&n, &b),
        Laplace::new(&x, &a),
        [0.6079627613043499, 0.8356812373375269, 0.11383255008210424]
    );
    kl!(
        Gumbel::new(&n, &b),
        Gumbel::new(&x, &a),
        [4.493222754437891, 0.8222063483823141, 0.2542468312978001]
    );
    kl!(
        Uniform::new(&n, &(&n + &b)),
        Uniform::new(-1.0, 4.0),
        [1.5141277326297755, 2.5257286443082556, f64::INFINITY]
    );
    kl!(
        Exponential::new(&b),
        Exponential::new(&a),
        [0.24300281490972475, 1.0713450036583536, 0.013649036795397418]
    );
    kl!(
        Gamma::new(&a, &b),
        Gamma::new(&x, &a),
        [0.24761007104523886, 1.0013299738667165, 0.25554101295818965]
    );
    kl!(
        Beta::new(&a, &b),
        Beta::new(&x, &a),
        [0.2437285719130002, 0.9625942899330048, 0.1449457424673415]
    );
    kl!(Dirichlet::new(&w), Dirichlet::new(&simplex), [0.3589625538481491, 3.904064842992004]);
    kl!(
        Bernoulli::new(&p),
        Bernoulli::new(&u),
        [0.00903671703720832, 0.00514610870107618, 0.010896061645137317]
    );
    kl!(
        Geometric::new(&p),
        Geometric::new(&u),
        [0.0451835851860416, 0.00935656127468365, 0.012106735161263815]
    );
    kl!(
        Binomial::new(6.0, &p),
        Binomial::new(6.0, &u),
        [0.05422030222324992, 0.030876652206456745, 0.0653763698708234]
    );
    kl!(
        Poisson::new(&a),
        Poisson::new(&b),
        [0.205771319817865, 0.6322514952441397, 0.04127260065242694]
    );
    kl!(Categorical::new(&w), Categorical::new(&simplex), [0.09203285023383184, 0.552561991460226]);
    kl!(
        MultivariateNormal::new(&n, &cov),
        MultivariateNormal::new(&x, &cov2),
        [0.9084061484235499]
    );
}

/// Gradients of samples: by shifting and scaling, and by implicit reparameterisation.
#[test]
fn samples_have_gradients() {
    set_default_dtype(DType::F64);
    manual_seed(9);
    let loc = tensor([0.3, -1.0]).requires_grad_(true);
    let scale = tensor([0.5, 2.0]).requires_grad_(true);
    let z = Normal::new(&loc, &scale).rsample(&[]);
    z.sum().backward();
    assert_eq!(loc.grad().unwrap().to_vec::<f64>(), [1.0, 1.0]);
    near("scale", &scale.grad().unwrap(), &((&z - &loc) / &scale).detach().to_vec::<f64>());
    // The mean of gamma samples is the concentration, so that its derivative is one; and the
    // mean of squares is a + a², with the derivative 1 + 2 a.
    for a in [0.3, 2.5, 30.0] {
        let c = tensor([a]).requires_grad_(true);
        let z = Gamma::new(&c, 1.0).rsample(&[20_000]);
        let g = sinter::grad(&[&z.mean(), &z.square().mean()], &[&c], false);
        let got = g[0].as_ref().unwrap().item::<f64>();
        assert!((got / (2.0 + 2.0 * a) - 1.0).abs() < 0.08, "{a}: {got}");
    }
    let c = tensor([1.5, 0.7, 4.0]).requires_grad_(true);
    let z = Dirichlet::new(&c).rsample(&[20_000]);
    let d = sinter::grad(&[&z.mean_dim(0, false).select(0, 0)], &[&c], false);
    // The mean is c₀ / Σ c.
    let want = [(6.2 - 1.5) / 38.44, -1.5 / 38.44, -1.5 / 38.44];
    for (g, w) in d[0].as_ref().unwrap().to_vec::<f64>().iter().zip(want) {
        assert!((g - w).abs() < 0.01, "{g} {w}");
    }
}

#[test]
fn draws_by_weight() {
    set_default_dtype(DType::F64);
    manual_seed(1);
    let w = tensor([[1.0, 0.0, 3.0], [0.0, 5.0, 0.0]]);
    let x = w.multinomial(8000, true);
    assert_eq!((x.shape(), x.dtype()), (&[2, 8000][..], DType::I64));
    let count = |row: i64, k: i64| x.select(0, row).eq(k).sum().item::<i64>();
    assert!((count(0, 0) - 2000).abs() < 200 && count(0, 1) == 0 && count(1, 1) == 8000);
    let all = tensor([0.2, 0.0, 0.5, 0.3]).multinomial(3, false).sort(0, false).0;
    assert_eq!(all.to_vec::<i64>(), [0, 2, 3]);
    let many = sinter::distributions::Categorical::new(&w).sample(&[2, 3]);
    assert_eq!(many.shape(), [2, 3, 2]);
    let x = sinter::zeros([20_000]);
    assert!((x.exponential_(0.5).mean().item::<f64>() - 2.0).abs() < 0.1);
    assert!((x.geometric_(0.25).mean().item::<f64>() - 4.0).abs() < 0.15);
    assert!((x.log_normal_(0.0, 0.5).mean().item::<f64>() - 0.125f64.exp()).abs() < 0.05);
    assert!(
        (x.cauchy_(3.0, 1.0).sort(0, false).0.select(0, 10_000).item::<f64>() - 3.0).abs() < 0.1
    );
    assert!((x.bernoulli_(0.3).mean().item::<f64>() - 0.3).abs() < 0.02);
}

#[test]
fn parameters_are_checked() {
    let message = |f: fn()| {
        let e = std::panic::catch_unwind(f).expect_err("it panics");
        e.downcast_ref::<String>().expect("a message").clone()
    };
    assert_eq!(message(|| drop(Normal::new(0.0, -1.0))), "Normal: `scale` must be positive");
    assert_eq!(message(|| drop(Bernoulli::new(1.5))), "Bernoulli: `probs` must be between 0 and 1");
    assert!(message(|| drop(Poisson::new(1.0).rsample(&[]))).contains("values are discrete"));
    assert!(
        message(|| drop(tensor([1.0, 0.0]).multinomial(2, false)))
            .contains("2 draws from 1 positive weight(s) of 2 without replacement")
    );
}
