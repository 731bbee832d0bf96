# Run the authors' model with rstan on a CSV: Rscript risk_stan.R model.stan rows.csv out.csv tune draws
# Prints CPU seconds of warm-up and draws.
suppressMessages(library(rstan))
args <- commandArgs(trailingOnly = TRUE)
# Debian's BH holds no headers of its own: they lie with the system's
boost <- if (dir.exists("/usr/include/boost")) "/usr/include" else NULL
model <- stan_model(args[1], boost_lib = boost)
rows <- read.csv(args[2])
X <- as.matrix(rows[, grep("^x", names(rows))])
data <- list(N = nrow(X), p = ncol(X), X = X, tested = rows$tested, y = rows$y)
tune <- as.integer(args[4])
fit <- sampling(
  model, data = data, chains = 1, cores = 1, warmup = tune, iter = tune + as.integer(args[5]),
  seed = 1, refresh = 0
)
write.csv(as.data.frame(fit), args[3], row.names = FALSE)
cat("CPU", sum(get_elapsed_time(fit)), "DIVERGENT", get_num_divergent(fit), "\n")
