// The uniform model in the coordinates and with the priors of Balachandar, Garg and Pierson (2024),
// arXiv 2312.03878, written from the formulas: no reparametrisation, closed form over Z.
functions {
  // integral of the logistic function from v to v + s
  real area(real v, real s) {
    return log1p_exp(v + s) - log1p_exp(v);
  }
}
data {
  int<lower=1> N;
  int<lower=1> p;
  matrix[N, p] X;
  int<lower=0, upper=1> tested[N];
  int<lower=0, upper=1> y[N];  // 0 where untested; not read there
}
parameters {
  vector[p] beta;
  vector[p] delta;
  real<lower=0> s;
}
model {
  vector[N] a = X * beta;
  vector[N] d = X * delta;
  beta ~ normal(0, 3);
  delta ~ normal(0, 3);
  s ~ normal(0, 3);
  for (i in 1:N) {
    real b = a[i] + d[i];
    if (tested[i] == 0)
      target += log(area(-b - s, s)) - log(s);
    else if (y[i] == 0)
      target += log((area(b, s) - area(a[i], s)) / (1 - exp(-d[i]))) - log(s);
    else
      target += log((area(a[i], s) - exp(-d[i]) * area(b, s)) / (1 - exp(-d[i]))) - log(s);
  }
}
