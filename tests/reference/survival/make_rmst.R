# Restricted means and quantiles at given parameters, by R's integrate and uniroot: rmst.json.
# Run in this folder: Rscript make_rmst.R

source("common.R")
grid <- expand.grid(kappa = c(-0.7, -0.3, 0, 0.5, 1, 2, Inf), gamma = c(0.4, 1, 3),
                    lam = c(0.5, 2), phi = 0.8, horizon = c(1.5, 6))
cases <- lapply(seq_len(nrow(grid)), function(i) with(grid[i, ], {
  H <- function(t) cumulative_hazard(t, phi, lam, gamma, kappa)
  # t = v^3 takes the corner of t^gamma at zero away.
  rmst <- integrate(function(v) exp(-H(v^3)) * 3 * v^2, 0, horizon^(1 / 3), rel.tol = 1e-12,
                    subdivisions = 2000)$value
  cure <- if (kappa < 0) exp(lam * (kappa + 1) / kappa) else 0
  quantile <- vapply(c(0.1, 0.5), function(p) {
    if (1 - p <= cure) return(Inf)
    upper <- 1
    while (H(exp(upper)) < -log(1 - p)) upper <- upper + 1
    exp(uniroot(function(y) H(exp(y)) + log(1 - p), c(-25, upper), tol = 1e-14)$root)
  }, 0)
  list(phi = phi, lam = lam, gamma = gamma, kappa = kappa, horizon = horizon, rmst = rmst,
       quantile_0.1 = quantile[1], quantile_0.5 = quantile[2], cure = cure)
}))
write_json(list(made_by = "make_rmst.R", versions = versions,
                scale = "phi, lam, gamma and kappa on their natural scale", cases = cases),
           "rmst.json")
