# Reference values of Brier scores, concordance and product-limit curves from R's survival and
# riskRegression. Usage: Rscript make_diagnostics.R gbsg2.csv > diagnostics.json
# where gbsg2.csv is causalrm.datasets.load_gbsg2().to_csv(index=False).
suppressMessages({library(survival); library(riskRegression)})
df <- read.csv(commandArgs(TRUE)[1])
row <- seq_len(nrow(df)) - 1
train <- df[row %% 2 == 1, ]
test <- df[row %% 2 == 0, ]
test$w <- 1 + test$nodes %% 3
test$entry <- pmin(10 * (test$age %% 20), test$time - 1)
num <- function(x) paste0("[", paste(formatC(as.numeric(x), digits = 12, format = "g"), collapse = ", "), "]")
out <- c(sprintf('"versions": {"R": "%s", "survival": "%s", "riskRegression": "%s"}',
                 getRversion(), packageVersion("survival"), packageVersion("riskRegression")))

fit <- survreg(Surv(time, event) ~ hormone + nodes, train, dist = "weibull",
               control = survreg.control(rel.tolerance = 1e-12))
lp <- predict(fit, test, type = "lp")
surv <- function(t) exp(-exp((log(t) - lp) / fit$scale))
times <- c(365, 1095, 1825)
risk <- sapply(times, function(t) 1 - surv(t))
s <- suppressMessages(Score(list(weibull = risk), formula = Surv(time, event) ~ 1, data = test, times = times,
           metrics = "brier", se.fit = TRUE, conservative = FALSE, cens.model = "km",
           null.model = TRUE, summary = "ipa"))
b <- as.data.frame(s$Brier$score)
out <- c(out, sprintf('"brier": {"times": %s, "null": %s, "null_se": %s, "model": %s, "model_se": %s, "ipa": %s}',
  num(times), num(b$Brier[b$model == "Null model"]), num(b$se[b$model == "Null model"]),
  num(b$Brier[b$model == "weibull"]), num(b$se[b$model == "weibull"]), num(b$IPA[b$model == "weibull"])))

con <- function(x) c(x$concordance, sqrt(x$var))
harrell <- con(concordance(Surv(time, event) ~ lp, test))
weighted <- con(concordance(Surv(time, event) ~ lp, test, weights = w))
cluster <- con(concordance(Surv(time, event) ~ lp, test, cluster = age))
truncated <- con(concordance(Surv(entry, time, event) ~ lp, test))
restricted <- con(concordance(Surv(time, event) ~ lp, test, ymax = 1499))
uno <- con(concordance(Surv(time, event) ~ lp, test, timewt = "n/G2", ymax = 1499))
out <- c(out, sprintf('"concordance": {"harrell": %s, "weighted": %s, "cluster": %s, "truncated": %s, "restricted": %s, "uno": %s}',
  num(harrell), num(weighted), num(cluster), num(truncated), num(restricted), num(uno)))

km <- summary(survfit(Surv(entry, time, event) ~ 1, test), times = times)
robust <- summary(survfit(Surv(time, event) ~ 1, test, weights = w, robust = TRUE), times = times)
both <- summary(survfit(Surv(entry, time, event) ~ 1, test, weights = w), times = times)
aalen <- summary(survfit(Surv(entry, time, event) ~ 1, test, weights = w, stype = 2, ctype = 1), times = times)
out <- c(out, sprintf('"kaplan_meier": {"times": %s, "entry": %s, "entry_se": %s, "weighted": %s, "weighted_se": %s, "both": %s, "nelson_aalen": %s}',
  num(times), num(km$surv), num(km$std.err), num(robust$surv), num(robust$std.err), num(both$surv), num(aalen$cumhaz)))
cat("{\n ", paste(out, collapse = ",\n  "), "\n}\n", sep = "")
