# What the scripts of this folder share: the model as its formulas stand, a maximiser, JSON.
# Needs R >= 4.2 with survival and numDeriv. The likelihood is written from the definitions
#   u = (phi t)^gamma
#   H = lambda (k+1)/k ((1 + u/(k+1))^k - 1)      k = 0: lambda log(1+u)   k = Inf: lambda (e^u - 1)
#   h = lambda gamma (u/t) (1 + u/(k+1))^(k-1)                             k = Inf: ... e^u
# and not in the stabilised form that the package uses, so that an error cannot be shared.

suppressPackageStartupMessages({
  library(survival)
  library(numDeriv)
})

cumulative_hazard <- function(t, phi, lam, gamma, k) {
  u <- (phi * t)^gamma
  if (k == Inf) lam * (exp(u) - 1)
  else if (k == 0) lam * log(1 + u)
  else lam * (k + 1) / k * ((1 + u / (k + 1))^k - 1)
}

hazard <- function(t, phi, lam, gamma, k) {
  u <- (phi * t)^gamma
  growth <- if (k == Inf) exp(u) else (1 + u / (k + 1))^(k - 1)
  lam * gamma * u / t * growth
}

# A model: one design matrix per parameter (NULL: the parameter is 1) and kappa, a number or "free".
# `lower`, `upper`: an exact time has lower = upper, a right-censored one upper = Inf,
# a left-censored one lower = entry.
loglik <- function(theta, model, lower, upper, entry) {
  n <- length(lower)
  at <- 0
  value <- list()
  for (name in c("phi", "lam", "gamma")) {
    X <- model[[name]]
    if (is.null(X)) value[[name]] <- rep(1, n)
    else {
      value[[name]] <- exp(drop(X %*% theta[at + seq_len(ncol(X))]))
      at <- at + ncol(X)
    }
  }
  k <- if (identical(model$kappa, "free")) exp(theta[at + 1]) - 1 else model$kappa
  H <- function(t, rows) cumulative_hazard(t[rows], value$phi[rows], value$lam[rows],
                                           value$gamma[rows], k)
  total <- sum(H(entry, rep(TRUE, n)))
  exact <- lower == upper
  right <- upper == Inf
  between <- !exact & !right
  total <- total - sum(H(lower, exact | right))
  total <- total + sum(log(hazard(lower[exact], value$phi[exact], value$lam[exact],
                                  value$gamma[exact], k)))
  total + sum(log(exp(-H(lower, between)) - exp(-H(upper, between))))
}

fit_apgw <- function(model, lower, upper, entry = rep(0, length(lower)), start = NULL,
                     events = NULL) {
  parameter <- term <- character()
  for (name in c("phi", "lam", "gamma")) {
    parameter <- c(parameter, rep(name, length(colnames(model[[name]]))))
    term <- c(term, colnames(model[[name]]))
  }
  free <- identical(model$kappa, "free")
  if (free) {
    parameter <- c(parameter, "nu")
    term <- c(term, "nu")
  }
  f <- function(theta) {
    value <- suppressWarnings(loglik(theta, model, lower, upper, entry))
    if (is.finite(value)) value else -1e10
  }
  log_scale <- mean(log(upper[is.finite(upper)]))
  best <- NULL
  for (nu in if (free) c(-2, -1, -0.5, 0.1, 0.4, 0.7, 1.3) else 0) {
    theta <- rep(0, length(parameter))
    theta[parameter == "phi" & term == "Intercept"] <- -log_scale
    if (free) theta[length(theta)] <- nu
    if (!is.null(start)) theta <- start
    for (round in 1:3) {
      o <- optim(theta, function(p) -f(p), method = "Nelder-Mead",
                 control = list(maxit = 5000, reltol = 1e-12))
      o <- optim(o$par, function(p) -f(p), method = "BFGS",
                 control = list(maxit = 1000, reltol = 1e-14))
      theta <- o$par
    }
    if (is.null(best) || o$value < best$value) best <- o
    if (!is.null(start)) break
  }
  theta <- best$par
  for (round in 1:10) {           # Newton, so that the estimates carry nine digits and more
    g <- grad(f, theta)
    if (max(abs(g)) < 1e-7) break
    theta <- theta - solve(hessian(f, theta), g)
  }
  covariance <- solve(-hessian(f, theta))
  value <- f(theta)
  list(n = length(lower), events = if (is.null(events)) sum(is.finite(upper)) else events,
       parameter = parameter, term = term, estimate = theta,
       std_error = sqrt(diag(covariance)), covariance = covariance, loglik = value,
       n_params = length(theta), aic = -2 * value + 2 * length(theta),
       bic = -2 * value + log(length(lower)) * length(theta),
       kappa = if (free) unname(exp(theta[length(theta)]) - 1) else model$kappa,
       max_abs_gradient = max(abs(grad(f, theta))))
}

design <- function(...) {
  X <- cbind(...)
  storage.mode(X) <- "double"
  X
}

# JSON: named lists are objects, vectors of length one scalars unless marked by array().
to_json <- function(x, indent = "") {
  quote_ <- function(s) paste0('"', gsub('"', '\\\\"', s), '"')
  number <- function(v) ifelse(is.na(v), "null", ifelse(is.infinite(v),
                               ifelse(v > 0, "Infinity", "-Infinity"), sprintf("%.15g", v)))
  scalar <- function(v) if (is.character(v)) quote_(v) else if (is.logical(v)) tolower(v) else number(v)
  deeper <- paste0(indent, " ")
  if (is.matrix(x)) {
    rows <- apply(unname(x), 1, function(r) paste0("[", paste(scalar(r), collapse = ", "), "]"))
    paste0("[\n", paste0(deeper, rows, collapse = ",\n"), "\n", indent, "]")
  } else if (is.list(x)) {
    items <- vapply(x, to_json, "", indent = deeper)
    if (is.null(names(x))) paste0("[\n", paste0(deeper, items, collapse = ",\n"), "\n", indent, "]")
    else paste0("{\n", paste0(deeper, quote_(names(x)), ": ", items, collapse = ",\n"), "\n", indent, "}")
  } else if (length(x) == 1 && is.null(attr(x, "array"))) scalar(unname(x))
  else paste0("[", paste(scalar(unname(x)), collapse = ", "), "]")
}

array_ <- function(x) structure(x, array = TRUE)

versions <- list(R = paste(R.version$major, R.version$minor, sep = "."),
                 survival = as.character(packageVersion("survival")),
                 numDeriv = as.character(packageVersion("numDeriv")))

write_json <- function(x, path) writeLines(to_json(x), path, useBytes = TRUE)
