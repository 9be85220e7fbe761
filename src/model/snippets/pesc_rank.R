# What PESC tells a rank. Put this file beside your program (it needs base R, nothing else):
#
#   source("pesc_rank.R")
#   pesc <- pesc_rank()
#   cat(pesc$rank, pesc$world_size, pesc$parameters, "\n")
#   pesc$progress(0.5, "half-way")
#   write.csv(result, file.path(pesc$output_dir(), "result.csv"))
#
# Started by PESC, the values are those of the job. Started alone, they are those of the command
# line (--rank 3 ...), else of the environment (PESC_RANK=3), else rank 0 of 1 in ".", with
# "./checkpoint" and "./output", which are made when they are first asked for. Your own arguments,
# without PESC's, are pesc$own_arguments. pesc$seed is a text of 64 bits, more than an R number
# holds; set.seed(pesc$seed_int) takes 31 of them.

pesc_rank <- function(arguments = commandArgs(trailingOnly = TRUE)) {
  flags <- c("app_dir", "checkpoint_dir", "output_dir", "rank", "world_size", "master_addr",
             "master_port", "parameters")
  # Long flags only: -r and -o may be the program's own.
  job <- Sys.getenv("PESC_JOB")
  alone <- !nzchar(job)
  given <- list()
  own <- arguments
  parameters <- Sys.getenv("PESC_PARAMETERS")
  parameters <- if (nzchar(parameters)) strsplit(paste0(parameters, "\n"), "\n")[[1]] else character()

  if (alone) {
    own <- character()
    i <- 1
    while (i <= length(arguments)) {
      argument <- arguments[i]
      name <- sub("=.*", "", sub("^--", "", argument))
      equals <- grepl("^--[a-z_]+=", argument)
      if (argument == "--") {
        own <- c(own, arguments[i:length(arguments)])
        break
      } else if (!startsWith(argument, "--") || !(name %in% flags)) {
        own <- c(own, argument)
      } else if (name == "parameters" && !equals) {
        parameters <- arguments[-seq_len(i)]
        break
      } else if (equals) {
        given[[name]] <- sub("^[^=]*=", "", argument)
        if (name == "parameters") parameters <- given[[name]]
      } else if (i < length(arguments)) {
        i <- i + 1
        given[[name]] <- arguments[i]
      } else {
        own <- c(own, argument)
      }
      i <- i + 1
    }
  } else {
    # PESC's arguments are the last ones, and the environment has the same values.
    begin <- which(arguments == "--app_dir")
    begin <- begin[arguments[begin + 1] %in% Sys.getenv("PESC_APP_DIR")]
    if (length(begin) > 0) own <- arguments[seq_len(max(begin) - 1)]
  }

  value <- function(name, otherwise) {
    if (!is.null(given[[name]])) return(given[[name]])
    Sys.getenv(paste0("PESC_", toupper(name)), otherwise)
  }
  made <- function(directory) {
    if (alone) dir.create(directory, recursive = TRUE, showWarnings = FALSE)
    directory
  }
  checkpoint_dir <- value("checkpoint_dir", "./checkpoint")
  output_dir <- value("output_dir", "./output")
  events <- Sys.getenv("PESC_EVENTS")
  event <- function(line) {
    if (!nzchar(events)) return(invisible())
    cat(gsub("[[:cntrl:]]", " ", line), "\n", sep = "", file = events, append = TRUE)
  }
  number <- function(x) {
    stopifnot("give a finite number" = is.numeric(x) && length(x) == 1 && is.finite(x))
    formatC(x, digits = 15, width = 1, format = "g", decimal.mark = ".")
  }

  rank <- as.integer(value("rank", "0"))
  seed <- Sys.getenv("PESC_SEED", as.character(rank))
  # The last digits of the seed: as.numeric() keeps only the first ones.
  seed_int <- as.integer(as.numeric(substring(seed, max(1, nchar(seed) - 14))) %% 2147483647)
  last <- list(text = NA_character_, fraction = -1)

  list(
    rank = rank,
    world_size = as.integer(value("world_size", "1")),
    app_dir = value("app_dir", "."),
    checkpoint_dir = function() made(checkpoint_dir),  # is there again after a restart
    output_dir = function() made(output_dir),          # what is written here comes back
    master_addr = value("master_addr", "127.0.0.1"),
    master_port = as.integer(value("master_port", "9000")),
    parameters = parameters,
    own_arguments = own,
    job = job,
    alone = alone,
    attempt = as.integer(Sys.getenv("PESC_ATTEMPT", "1")),
    seed = seed,
    seed_int = seed_int,

    # How far the rank is, 0 to 1. Cheap: a thousandth more of the same is not written.
    progress = function(fraction, text = "") {
      shown <- number(min(1, max(0, fraction)))
      more <- fraction - last$fraction
      if (identical(text, last$text) && fraction < 1 && more >= 0 && more < 1e-3) {
        return(invisible())
      }
      last <<- list(text = text, fraction = fraction)
      event(trimws(paste("progress", shown, text), "right"))
    },
    # A number worth seeing while the job runs.
    metric = function(name, value) {
      event(paste("metric", gsub("[[:space:]]+", "_", name), number(value)))
    },
    # checkpoint_dir is complete now: PESC may save it.
    checkpoint_done = function() event("checkpoint"),
    # Saves an R object as checkpoint_dir/name, whole or not at all.
    save_checkpoint = function(name, object) {
      path <- file.path(made(checkpoint_dir), name)
      saveRDS(object, paste0(path, ".tmp"))
      # R has no fsync; renaming is what makes it whole or not at all.
      if (!file.rename(paste0(path, ".tmp"), path)) stop("cannot save ", path)
      event("checkpoint")
    },
    # The object saved under that name, or NULL at a fresh start.
    load_checkpoint = function(name) {
      path <- file.path(made(checkpoint_dir), name)
      if (file.exists(path)) readRDS(path) else NULL
    }
  )
}
