# Small R data files for test_rdata.py. Run in this folder: Rscript make_rda.R

mixed <- data.frame(flag = c(TRUE, NA, FALSE), whole = c(1L, NA, -3L), count = 1:3,
                    real = c(0.1, NA, Inf), group = factor(c("b", NA, "a"), levels = c("b", "a")),
                    grade = factor(c("low", "high", "low"), levels = c("low", "high"), ordered = TRUE),
                    text = c("one", NA, "\u00e9t\u00e9"))
named <- data.frame(x = c(1.5, 2.5), row.names = c("first", "second"))
named$latin <- iconv(c("a", "\u00e9"), "UTF-8", "latin1")
dated <- data.frame(day = as.Date("2024-01-02"))
numbers <- c(1, 2)
long <- data.frame(index = 1:100)
long$sorted <- sort(rev(seq(0.5, 50, by = 0.5)))  # kept by R as a wrapped, compact vector
long$half <- 0.5 + 0:99
shuffled <- mixed[c(3, 1), ]

save(mixed, named, file = "gzip.rda")
save(mixed, named, file = "bzip2_v2.rda", compress = "bzip2", version = 2)
save(mixed, named, file = "xz.rda", compress = "xz")
save(mixed, named, file = "plain.rda", compress = FALSE)
save(long, file = "long.rda", compress = FALSE)
save(shuffled, file = "shuffled.rda")
save(mixed, file = "ascii.rda", ascii = TRUE)
save(dated, file = "dated.rda")
save(numbers, file = "numbers.rda")
identity_ <- function(x) x
save(identity_, file = "function.rda")
