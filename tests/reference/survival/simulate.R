# Simulated data sets for the reference fits: truncated.csv, interval.csv and left.csv.
# Run in this folder: Rscript simulate.R

quantile_time <- function(e, phi, lam, gamma, k) {
  u <- (k + 1) * ((1 + k * (e / lam) / (k + 1))^(1 / k) - 1)
  u^(1 / gamma) / phi
}

# Delayed entry: a person is seen only when the event comes after the entry time.
set.seed(20241)
rows <- list()
while (length(rows) < 300) {
  x <- round(rnorm(1), 3)
  trt <- rbinom(1, 1, 0.5)
  t <- quantile_time(rexp(1), exp(-0.5 + 0.4 * x - 0.5 * trt), 1, exp(0.3), 0.5)
  entry <- round(if (runif(1) < 0.2) 0 else runif(1, 0, 2), 4)
  end <- min(entry + rexp(1, 0.15), 8)
  if (t > entry + 1e-3)
    rows[[length(rows) + 1]] <- data.frame(entry = entry, time = round(min(t, end), 4) + 1e-4,
                                           event = as.integer(t <= end), x = x, trt = trt)
}
truncated <- do.call(rbind, rows)
stopifnot(all(truncated$time > truncated$entry))
write.csv(truncated, "truncated.csv", row.names = FALSE, quote = FALSE)

# Visits: every event is known to lie between two visits, some are seen exactly,
# some came before the first visit (lower = 0), some after the last (upper = Inf).
set.seed(20242)
n <- 300
x <- round(rnorm(n), 3)
trt <- rbinom(n, 1, 0.5)
t <- quantile_time(rexp(n), exp(-0.6 + 0.3 * x - 0.4 * trt), 1, exp(0.4), 0.7)
end <- pmin(1 + rexp(n, 0.1), 6)
exact <- runif(n) < 0.2
first <- runif(n, 0.3, 1)
gap <- runif(n, 0.4, 1.2)
lower <- upper <- numeric(n)
for (i in seq_len(n)) {
  visits <- c(seq(first[i], max(end[i], first[i]), by = gap[i]), max(end[i], first[i]))
  if (exact[i] && t[i] <= max(visits)) lower[i] <- upper[i] <- round(t[i], 4)
  else {
    before <- visits[visits < t[i]]
    after <- visits[visits >= t[i]]
    lower[i] <- if (length(before)) round(max(before), 4) else 0
    upper[i] <- if (length(after)) round(min(after), 4) else Inf
  }
}
stopifnot(all(lower <= upper), all(upper > 0))
write.csv(data.frame(lower, upper, x, trt), "interval.csv", row.names = FALSE, quote = FALSE)

# Left censoring: a time below 0.5 is known only as such (lower = 0, upper = 0.5).
set.seed(20243)
n <- 200
x <- round(rnorm(n), 3)
t <- quantile_time(rexp(n), exp(-0.3 + 0.5 * x), 1, exp(0.2), 1)
end <- pmin(0.6 + rexp(n, 0.2), 5)
lower <- ifelse(t < 0.5, 0, round(pmin(t, end), 4))
upper <- ifelse(t < 0.5, 0.5, ifelse(t <= end, lower, Inf))
write.csv(data.frame(lower, upper, x), "left.csv", row.names = FALSE, quote = FALSE)
