# Reference fits of the multi-parameter model, maximised in R from its definition: apgw.json.
# Run in this folder: Rscript make_apgw.R PATH/e1684.csv
# Standard errors: observed information by Richardson extrapolation (numDeriv).

source("common.R")
e1684_path <- commandArgs(trailingOnly = TRUE)[1]

one <- function(n) design(Intercept = rep(1, n))
right <- function(time, event) ifelse(event == 1, time, Inf)

e1684 <- read.csv(e1684_path)
e1684 <- e1684[complete.cases(e1684), ]
constant <- one(nrow(e1684))
trt <- design(`treatment[T.interferon]` = e1684$TRT)
both <- cbind(constant, trt)
melanoma <- function(...) {
  fit_apgw(list(kappa = "free", ...), e1684$FAILTIME, right(e1684$FAILTIME, e1684$FAILCENS))
}

lung <- lung[complete.cases(lung[c("age", "sex", "ph.ecog")]), ]
X <- design(Intercept = 1, age = lung$age, `sex[T.female]` = lung$sex - 1, ph_ecog = lung$ph.ecog)

truncated <- read.csv("truncated.csv")
W <- with(truncated, design(Intercept = 1, x = x, trt = trt))
interval <- read.csv("interval.csv")
I <- with(interval, design(Intercept = 1, x = x, trt = trt))
left <- read.csv("left.csv")
L <- with(left, design(Intercept = 1, x = x))
with_entry <- function(model)
  fit_apgw(model, truncated$time, right(truncated$time, truncated$event), truncated$entry)

fits <- list(
  e1684_phi = melanoma(phi = both, gamma = constant),
  e1684_lam = melanoma(phi = constant, lam = trt, gamma = constant),
  e1684_phi_gamma = melanoma(phi = both, gamma = both),
  e1684_lam_gamma = melanoma(phi = constant, lam = trt, gamma = both),
  e1684_phi_lam = melanoma(phi = both, lam = trt, gamma = constant),
  e1684_constant = melanoma(phi = constant, gamma = constant),
  e1684_constant_lam = melanoma(phi = constant, lam = constant, gamma = constant),
  e1684_burr = fit_apgw(list(phi = constant, lam = both, gamma = constant, kappa = 0),
                        e1684$FAILTIME, right(e1684$FAILTIME, e1684$FAILCENS)),
  truncated_phi = with_entry(list(phi = W, gamma = W[, 1, drop = FALSE], kappa = "free")),
  truncated_phi_gamma = with_entry(list(phi = W, gamma = W[, c(1, 3)], kappa = "free")),
  truncated_weibull = with_entry(list(phi = W, gamma = W[, 1, drop = FALSE], kappa = 1)),
  interval_phi = fit_apgw(list(phi = I, gamma = I[, 1, drop = FALSE], kappa = "free"),
                          interval$lower, interval$upper),
  interval_phi_gamma = fit_apgw(list(phi = I, gamma = I[, c(1, 3)], kappa = "free"),
                                interval$lower, interval$upper),
  # With kappa free the likelihood of left.csv rises with kappa to infinity and has no
  # maximum: left_limit is its limit.
  left_phi = fit_apgw(list(phi = L, gamma = L[, 1, drop = FALSE], kappa = 2),
                      left$lower, left$upper),
  left_limit = fit_apgw(list(phi = L, gamma = L[, 1, drop = FALSE], kappa = Inf),
                        left$lower, left$upper),
  # Gompertz: kappa = infinity and gamma = 1; phi is its rate, lambda carries the covariates.
  lung_gompertz = fit_apgw(list(phi = one(nrow(lung)), lam = X, kappa = Inf),
                           lung$time, right(lung$time, lung$status - 1),
                           start = c(-7, 0, 0, 0, 0))
)

# What the fit e1684_phi_gamma predicts, with standard errors by the delta method on each
# quantity's own scale. Columns: control, interferon.
best <- fits$e1684_phi_gamma
arms <- function(theta) lapply(0:1, function(a) list(phi = exp(theta[1] + a * theta[2]),
  gamma = exp(theta[3] + a * theta[4]), k = exp(theta[5]) - 1))
described <- function(quantity) {
  each <- function(theta) vapply(arms(theta), quantity, 0)
  J <- jacobian(each, best$estimate)
  list(value = each(best$estimate), std_error = sqrt(diag(J %*% best$covariance %*% t(J))))
}
S <- function(a, t) exp(-cumulative_hazard(t, a$phi, 1, a$gamma, a$k))
solve_quantile <- function(a, p)
  exp(uniroot(function(y) cumulative_hazard(exp(y), a$phi, 1, a$gamma, a$k) + log(1 - p),
              c(-20, 20), tol = 1e-13)$root)
predictions <- list()
for (t in c(0.5, 2, 5)) {
  predictions[[paste0("survival_", t)]] <- described(function(a) S(a, t))
  predictions[[paste0("cumulative_hazard_", t)]] <-
    described(function(a) cumulative_hazard(t, a$phi, 1, a$gamma, a$k))
  predictions[[paste0("hazard_", t)]] <- described(function(a) hazard(t, a$phi, 1, a$gamma, a$k))
  predictions[[paste0("rmst_", t)]] <- described(function(a)
    integrate(function(s) S(a, s), 0, t, rel.tol = 1e-11, subdivisions = 1000)$value)
}
for (p in c(0.25, 0.4)) predictions[[paste0("quantile_", p)]] <- described(function(a) solve_quantile(a, p))
predictions$cure <- described(function(a) exp((a$k + 1) / a$k))

write_json(list(made_by = "make_apgw.R", versions = versions,
                data = list(e1684 = "ECOG E1684, the 284 complete rows; time in years",
                            lung = "survival::lung, the 227 rows complete in age, sex and ph.ecog",
                            truncated = "truncated.csv (simulated)",
                            interval = "interval.csv (simulated)", left = "left.csv (simulated)"),
                scale = "phi, lam and gamma on the log scale; nu = log(kappa + 1)",
                fits = fits,
                predictions = list(fit = "e1684_phi_gamma", arms = c("control", "interferon"),
                                   quantities = predictions)), "apgw.json")
for (name in names(fits)) cat(sprintf("%-22s %12.5f kappa %9.5f max|g| %.1e\n", name,
  fits[[name]]$loglik, fits[[name]]$kappa, fits[[name]]$max_abs_gradient))
