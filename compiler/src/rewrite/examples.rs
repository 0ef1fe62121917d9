//! Graphs on which each rule applies. The proof of a rule runs them with and
//! without it; where a name says so, inputs are positive.

macro_rules! example {
    ($($name:ident = $body:literal;)*) => {
        $(pub(super) const $name: &str = concat!("graph \"example\" {\n", $body, "\n}\n");)*
    };
}

example! {
    SCALAR_RIGHT_MUL_ONE = "%0 = input \"x\": f32[2, 3]
        %1 = full[value=1.0, dtype=f32, shape=()](): f32[]
        %2 = mul(%0, %1): f32[2, 3]
        return %2";
    SCALAR_LEFT_MUL_ONE = "%0 = input \"x\": f32[2, 3]
        %1 = full[value=1.0, dtype=f32, shape=(3)](): f32[3]
        %2 = mul(%1, %0): f32[2, 3]
        return %2";
    SCALAR_RIGHT_DIV_ONE = "%0 = input \"x\": f32[2, 3]
        %1 = full[value=1.0, dtype=f32, shape=()](): f32[]
        %2 = div(%0, %1): f32[2, 3]
        return %2";
    SCALAR_RIGHT_SUB_ZERO = "%0 = input \"x\": f32[2, 3]
        %1 = full[value=0.0, dtype=f32, shape=()](): f32[]
        %2 = sub(%0, %1): f32[2, 3]
        return %2";
    SCALAR_RIGHT_ADD_ZERO = "%0 = input \"x\": f32[2, 3]
        %1 = full[value=0.0, dtype=f32, shape=()](): f32[]
        %2 = add(%0, %1): f32[2, 3]
        return %2";
    SCALAR_LEFT_ADD_ZERO = "%0 = input \"x\": f32[2, 3]
        %1 = full[value=0.0, dtype=f32, shape=()](): f32[]
        %2 = add(%1, %0): f32[2, 3]
        return %2";
    NEG_NEG = "%0 = input \"x\": f32[5]
        %1 = neg(%0): f32[5]
        %2 = neg(%1): f32[5]
        return %2";
    ADD_NEG = "%0 = input \"x\": f32[2, 3]
        %1 = input \"y\": f32[3]
        %2 = neg(%1): f32[3]
        %3 = add(%0, %2): f32[2, 3]
        return %3";
    SUB_NEG = "%0 = input \"x\": f32[2, 3]
        %1 = input \"y\": f32[3]
        %2 = neg(%1): f32[3]
        %3 = sub(%0, %2): f32[2, 3]
        return %3";
    RELU_RELU = "%0 = input \"x\": f32[7]
        %1 = relu(%0): f32[7]
        %2 = relu(%1): f32[7]
        return %2";
    ABS_ABS = "%0 = input \"x\": f32[7]
        %1 = abs(%0): f32[7]
        %2 = abs(%1): f32[7]
        return %2";
    ABS_NEG = "%0 = input \"x\": f32[7]
        %1 = neg(%0): f32[7]
        %2 = abs(%1): f32[7]
        return %2";
    MUL_SELF = "%0 = input \"x\": f32[7]
        %1 = mul(%0, %0): f32[7]
        return %1";
    POW_TWO = "%0 = input \"x\": f32[7]
        %1 = full[value=2.0, dtype=f32, shape=()](): f32[]
        %2 = pow(%0, %1): f32[7]
        return %2";
    DIV_SQRT = "%0 = input \"x\": f32[2, 3]
        %1 = input \"positive y\": f32[2, 1]
        %2 = sqrt(%1): f32[2, 1]
        %3 = div(%0, %2): f32[2, 3]
        return %3";
    RECIPROCAL_SQRT = "%0 = input \"positive x\": f32[5]
        %1 = sqrt(%0): f32[5]
        %2 = reciprocal(%1): f32[5]
        return %2";
    DIV_CONSTANT = "%0 = input \"x\": f32[2, 3]
        %1 = full[value=8.5, dtype=f32, shape=()](): f32[]
        %2 = div(%0, %1): f32[2, 3]
        return %2";
    MUL_CONSTANTS = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"a\": f32[3]
        %2 = full[value=0.3, dtype=f32, shape=()](): f32[]
        %3 = mul(%0, %1): f32[2, 3]
        %4 = mul(%3, %2): f32[2, 3]
        return %4";
    ADD_CONSTANTS = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"a\": f32[3]
        %2 = constant \"b\": f32[2, 1]
        %3 = add(%0, %1): f32[2, 3]
        %4 = add(%3, %2): f32[2, 3]
        return %4";
    MAX_ZERO = "%0 = input \"x\": f32[7]
        %1 = full[value=0.0, dtype=f32, shape=()](): f32[]
        %2 = maximum(%0, %1): f32[7]
        return %2";
    RESHAPE_RESHAPE = "symbol N in 1..=9 hint 3
        %0 = input \"x\": f32[N, 4, 3]
        %1 = reshape[shape=(12*N)](%0): f32[12*N]
        %2 = reshape[shape=(N, 12)](%1): f32[N, 12]
        return %2";
    RESHAPE_SAME = "%0 = input \"x\": f32[2, 3]
        %1 = reshape[shape=(2, 3)](%0): f32[2, 3]
        return %1";
    BROADCAST_SAME = "%0 = input \"x\": f32[2, 3]
        %1 = broadcast[shape=(2, 3)](%0): f32[2, 3]
        return %1";
    PERMUTE_PERMUTE = "%0 = input \"x\": f32[2, 3, 4]
        %1 = permute[perm=(1, 2, 0)](%0): f32[3, 4, 2]
        %2 = permute[perm=(0, 2, 1)](%1): f32[3, 2, 4]
        return %2";
    PERMUTE_IDENTITY = "%0 = input \"x\": f32[2, 3]
        %1 = permute[perm=(0, 1)](%0): f32[2, 3]
        return %1";
    CAST_SAME = "%0 = input \"x\": f32[2, 3]
        %1 = cast[dtype=f32](%0): f32[2, 3]
        return %1";
    SLICE_ALL = "%0 = input \"x\": f32[2, 3]
        %1 = slice[axis=1, step=1, start=0, len=3](%0): f32[2, 3]
        return %1";
    SILU = "%0 = input \"x\": f32[9]
        %1 = sigmoid(%0): f32[9]
        %2 = mul(%0, %1): f32[9]
        return %2";
    SILU_LEFT = "%0 = input \"x\": f32[9]
        %1 = sigmoid(%0): f32[9]
        %2 = mul(%1, %0): f32[9]
        return %2";
    SIGMOID = "%0 = input \"x\": f32[9]
        %1 = full[value=1.0, dtype=f32, shape=()](): f32[]
        %2 = neg(%0): f32[9]
        %3 = exp(%2): f32[9]
        %4 = add(%1, %3): f32[9]
        %5 = div(%1, %4): f32[9]
        return %5";
    GELU = "%0 = input \"x\": f32[9]
        %1 = full[value=0.5, dtype=f32, shape=()](): f32[]
        %2 = full[value=0.7071067690849304, dtype=f32, shape=()](): f32[]
        %3 = full[value=1.0, dtype=f32, shape=()](): f32[]
        %4 = mul(%0, %1): f32[9]
        %5 = mul(%0, %2): f32[9]
        %6 = erf(%5): f32[9]
        %7 = add(%6, %3): f32[9]
        %8 = mul(%4, %7): f32[9]
        return %8";
    GELU_DIV = "%0 = input \"x\": f32[9]
        %1 = full[value=0.5, dtype=f32, shape=()](): f32[]
        %2 = full[value=1.4142135381698608, dtype=f32, shape=()](): f32[]
        %3 = full[value=1.0, dtype=f32, shape=()](): f32[]
        %4 = mul(%0, %1): f32[9]
        %5 = div(%0, %2): f32[9]
        %6 = erf(%5): f32[9]
        %7 = add(%6, %3): f32[9]
        %8 = mul(%4, %7): f32[9]
        return %8";
    SOFTMAX = "%0 = input \"x\": f32[4, 5]
        %1 = reduce[kind=max, axes=(1), keep=true](%0): f32[4, 1]
        %2 = sub(%0, %1): f32[4, 5]
        %3 = exp(%2): f32[4, 5]
        %4 = reduce[kind=sum, axes=(1), keep=true](%3): f32[4, 1]
        %5 = div(%3, %4): f32[4, 5]
        return %5";
    LOG_SOFTMAX = "%0 = input \"x\": f32[4, 5]
        %1 = softmax[axis=0, log=false](%0): f32[4, 5]
        %2 = log(%1): f32[4, 5]
        return %2";
    ATTENTION = "symbol N in 1..=9 hint 3
        %0 = input \"q\": f32[N, 2, 5, 4]
        %1 = input \"k\": f32[N, 2, 7, 4]
        %2 = input \"v\": f32[N, 2, 7, 3]
        %3 = permute[perm=(0, 1, 3, 2)](%1): f32[N, 2, 4, 7]
        %4 = matmul[act=none](%0, %3): f32[N, 2, 5, 7]
        %5 = full[value=0.5, dtype=f32, shape=()](): f32[]
        %6 = mul(%4, %5): f32[N, 2, 5, 7]
        %7 = softmax[axis=3, log=false](%6): f32[N, 2, 5, 7]
        %8 = matmul[act=none](%7, %2): f32[N, 2, 5, 3]
        return %8";
    ATTENTION_MASKED = "%0 = input \"q\": f32[3, 5, 4]
        %1 = input \"k\": f32[3, 4, 7]
        %2 = input \"v\": f32[3, 7, 4]
        %3 = input \"mask\": f32[1, 1, 7]
        %4 = full[value=0.5, dtype=f32, shape=()](): f32[]
        %5 = mul(%0, %4): f32[3, 5, 4]
        %6 = matmul[act=none](%5, %1): f32[3, 5, 7]
        %7 = add(%6, %3): f32[3, 5, 7]
        %8 = softmax[axis=2, log=false](%7): f32[3, 5, 7]
        %9 = matmul[act=none](%8, %2): f32[3, 5, 4]
        return %9";
    ATTENTION_SELECTED = "%0 = input \"q\": f32[3, 5, 4]
        %1 = input \"k\": f32[3, 4, 7]
        %2 = input \"v\": f32[3, 7, 4]
        %3 = input \"m\": f32[5, 7]
        %4 = full[value=0.0, dtype=f32, shape=()](): f32[]
        %5 = full[value=-1000000000.0, dtype=f32, shape=()](): f32[]
        %6 = gt(%3, %4): bool[5, 7]
        %7 = matmul[act=none](%0, %1): f32[3, 5, 7]
        %8 = select(%6, %5, %7): f32[3, 5, 7]
        %9 = softmax[axis=2, log=false](%8): f32[3, 5, 7]
        %10 = matmul[act=none](%9, %2): f32[3, 5, 4]
        return %10";
    ATTENTION_CAUSAL = "%0 = input \"q\": f32[6, 4]
        %1 = input \"k\": f32[4, 6]
        %2 = input \"v\": f32[6, 4]
        %3 = iota[dtype=i64, axis=0, shape=(6, 6)](): i64[6, 6]
        %4 = iota[dtype=i64, axis=1, shape=(6, 6)](): i64[6, 6]
        %5 = ge(%3, %4): bool[6, 6]
        %6 = full[value=-inf, dtype=f32, shape=()](): f32[]
        %7 = matmul[act=none](%0, %1): f32[6, 6]
        %8 = select(%5, %7, %6): f32[6, 6]
        %9 = softmax[axis=1, log=false](%8): f32[6, 6]
        %10 = matmul[act=none](%9, %2): f32[6, 4]
        return %10";
    MATMUL_BIAS = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = constant \"b\": f32[4]
        %3 = matmul[act=none](%0, %1): f32[2, 4]
        %4 = add(%3, %2): f32[2, 4]
        return %4";
    BIAS_MATMUL = "%0 = input \"x\": f32[5, 2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = constant \"b\": f32[1, 4]
        %3 = matmul[act=none](%0, %1): f32[5, 2, 4]
        %4 = add(%2, %3): f32[5, 2, 4]
        return %4";
    MATMUL_RELU = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = matmul[act=none](%0, %1): f32[2, 4]
        %3 = relu(%2): f32[2, 4]
        return %3";
    MATMUL_GELU = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = constant \"b\": f32[4]
        %3 = matmul[act=none](%0, %1, %2): f32[2, 4]
        %4 = gelu(%3): f32[2, 4]
        return %4";
    MATMUL_GELU_TANH = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = matmul[act=none](%0, %1): f32[2, 4]
        %3 = gelu_tanh(%2): f32[2, 4]
        return %3";
    MATMUL_SILU = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = matmul[act=none](%0, %1): f32[2, 4]
        %3 = silu(%2): f32[2, 4]
        return %3";
    MATMUL_SIGMOID = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = matmul[act=none](%0, %1): f32[2, 4]
        %3 = sigmoid(%2): f32[2, 4]
        return %3";
    MATMUL_TANH = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = matmul[act=none](%0, %1): f32[2, 4]
        %3 = tanh(%2): f32[2, 4]
        return %3";
    MATMUL_SCALE = "%0 = input \"x\": f32[2, 3]
        %1 = constant \"w\": f32[3, 4]
        %2 = full[value=0.125, dtype=f32, shape=()](): f32[]
        %3 = matmul[act=none](%0, %1): f32[2, 4]
        %4 = mul(%3, %2): f32[2, 4]
        return %4";
    CONV_RELU = "%0 = input \"x\": f32[2, 3, 5, 5]
        %1 = constant \"w\": f32[4, 3, 3, 3]
        %2 = conv2d[stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, act=none](%0, %1): f32[2, 4, 5, 5]
        %3 = relu(%2): f32[2, 4, 5, 5]
        return %3";
    CONV_BIAS = "%0 = input \"x\": f32[2, 3, 5, 5]
        %1 = constant \"w\": f32[4, 3, 3, 3]
        %2 = constant \"b\": f32[4, 1, 1]
        %3 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%0, %1): f32[2, 4, 3, 3]
        %4 = add(%3, %2): f32[2, 4, 3, 3]
        return %4";
    CONV_BIAS_BIAS = "%0 = input \"x\": f32[2, 3, 5, 5]
        %1 = constant \"w\": f32[4, 3, 3, 3]
        %2 = constant \"a\": f32[4]
        %3 = constant \"b\": f32[1, 4, 1, 1]
        %4 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%0, %1, %2): f32[2, 4, 3, 3]
        %5 = add(%4, %3): f32[2, 4, 3, 3]
        return %5";
    CONV_SUB = "%0 = input \"x\": f32[2, 3, 5, 5]
        %1 = constant \"w\": f32[4, 3, 3, 3]
        %2 = constant \"b\": f32[4, 1, 1]
        %3 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%0, %1): f32[2, 4, 3, 3]
        %4 = sub(%3, %2): f32[2, 4, 3, 3]
        return %4";
    CONV_BIAS_SUB = "%0 = input \"x\": f32[2, 3, 5, 5]
        %1 = constant \"w\": f32[4, 3, 3, 3]
        %2 = constant \"a\": f32[4]
        %3 = constant \"b\": f32[4, 1, 1]
        %4 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%0, %1, %2): f32[2, 4, 3, 3]
        %5 = sub(%4, %3): f32[2, 4, 3, 3]
        return %5";
    CONV_SCALE = "%0 = input \"x\": f32[2, 4, 5, 5]
        %1 = constant \"w\": f32[4, 2, 3, 3]
        %2 = constant \"s\": f32[4, 1, 1]
        %3 = conv2d[stride=(2, 1), padding=(1, 0), dilation=(1, 1), groups=2, act=none](%0, %1): f32[2, 4, 3, 3]
        %4 = mul(%3, %2): f32[2, 4, 3, 3]
        return %4";
    CONV_BIAS_SCALE = "%0 = input \"x\": f32[2, 3, 5, 5]
        %1 = constant \"w\": f32[4, 3, 3, 3]
        %2 = constant \"a\": f32[4]
        %3 = constant \"s\": f32[1, 4, 1, 1]
        %4 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%0, %1, %2): f32[2, 4, 3, 3]
        %5 = mul(%4, %3): f32[2, 4, 3, 3]
        return %5";
    RELU_POOL = "%0 = input \"x\": f32[2, 3, 6, 6]
        %1 = constant \"w\": f32[4, 3, 3, 3]
        %2 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%0, %1): f32[2, 4, 4, 4]
        %3 = pool2d[kind=max, window=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil=false](%2): f32[2, 4, 2, 2]
        %4 = relu(%3): f32[2, 4, 2, 2]
        return %4";
}
