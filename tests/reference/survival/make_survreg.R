# Reference values from R's survival::survreg: survreg.json.
# Run in this folder: Rscript make_survreg.R PATH/e1684.csv
#
# survreg fits log T = b'x + scale W. With log phi = -b'x and log gamma = -log(scale) its
# Weibull is kappa = 1 and its log-logistic kappa = 0 of the model here (lambda = 1), so the
# estimates change sign and every covariance stays as it is.
# Covariances: "model" is the inverse information; "robust" is the sandwich of the (weighted)
# row scores; "cluster" that of their sums within clusters. No finite-sample factor in either.
# With weights survreg's own robust = TRUE leaves them out of the scores (survival 3.5), so the
# sandwiches are built here from its weighted dfbeta residuals; without weights they are the same.

source("common.R")
e1684_path <- commandArgs(trailingOnly = TRUE)[1]
control <- survreg.control(maxiter = 200, rel.tolerance = 1e-13)

reference <- function(formula, data, dist, terms, ..., cluster = NULL, weights = NULL, note = NULL) {
  arguments <- list(formula, data = data, dist = dist, control = control)
  if (!is.null(weights)) arguments$weights <- weights
  fit <- do.call(survreg, arguments)
  sigma <- dist != "exponential"
  influence <- residuals(fit, "dfbeta", weighted = TRUE)
  covariances <- list(model = unname(fit$var), robust = unname(crossprod(influence)))
  if (!is.null(cluster)) covariances$cluster <- unname(crossprod(rowsum(influence, cluster)))
  if (is.null(weights)) {
    own <- do.call(survreg, c(arguments, list(robust = TRUE)))$var
    stopifnot(isTRUE(all.equal(unname(own), covariances$robust)))
  }
  estimate <- c(-coef(fit), if (sigma) -log(fit$scale))
  out <- list(n = nrow(data), parameter = array_(c(rep("phi", length(terms)), if (sigma) "gamma")),
              term = array_(c(terms, if (sigma) "Intercept")), estimate = array_(estimate),
              kappa = if (dist == "loglogistic") 0 else 1, loglik = fit$loglik[2],
              n_params = length(estimate),
              std_error = lapply(covariances, function(V) array_(sqrt(diag(V)))),
              covariance = covariances)
  if (!is.null(note)) out$note <- note
  out
}

e1684 <- read.csv(e1684_path)
e1684 <- e1684[complete.cases(e1684), ]
lung <- lung[complete.cases(lung[c("age", "sex", "ph.ecog")]), ]
lung$event <- lung$status - 1
lung$female <- lung$sex - 1
with_inst <- lung[!is.na(lung$inst), ]
interval <- read.csv("interval.csv")
left <- read.csv("left.csv")
between <- function(d) Surv(ifelse(d$lower == 0, NA, d$lower), ifelse(d$upper == Inf, NA, d$upper),
                            type = "interval2")
interval$y <- between(interval)
left$y <- between(left)

lung_terms <- c("Intercept", "age", "sex[T.female]", "ph_ecog")
trt <- c("Intercept", "treatment[T.interferon]")
lung_formula <- Surv(time, event) ~ age + female + ph.ecog
fits <- list()
for (dist in c("weibull", "loglogistic")) {
  fits[[paste0("e1684_", dist)]] <- reference(Surv(FAILTIME, FAILCENS) ~ TRT, e1684, dist, trt)
  fits[[paste0("lung_", dist)]] <- reference(lung_formula, lung, dist, lung_terms)
}
fits$lung_exponential <- reference(lung_formula, lung, "exponential", lung_terms)
fits$lung_weibull_cluster <- reference(lung_formula, with_inst, "weibull", lung_terms,
  cluster = with_inst$inst, note = "the rows with an institution; clusters are institutions")
fits$lung_weibull_weighted <- reference(lung_formula, lung, "weibull", lung_terms,
  weights = 1 + (lung$age %% 5) / 2,
  note = "weights = 1 + (age mod 5) / 2, not rescaled: loglik is the weighted sum")
fits$interval_weibull <- reference(y ~ x + trt, interval, "weibull", c("Intercept", "x", "trt"))
fits$interval_loglogistic <- reference(y ~ x + trt, interval, "loglogistic",
                                       c("Intercept", "x", "trt"))
fits$left_weibull <- reference(y ~ x, left, "weibull", c("Intercept", "x"))

write_json(list(made_by = "make_survreg.R",
                versions = versions,
                data = list(e1684 = "ECOG E1684, the 284 complete rows",
                            lung = "survival::lung, the 227 rows complete in age, sex and ph.ecog",
                            interval = "interval.csv (simulated)", left = "left.csv (simulated)"),
                covariances = paste("model: inverse information; robust and cluster: sandwich",
                                    "without any finite-sample factor"),
                fits = fits), "survreg.json")
