# What PESC tells a rank, for sh, dash, bash and the like. Put this file beside your program:
#
#   . ./pesc_rank.sh
#   echo "rank $PESC_RANK of $PESC_WORLD_SIZE"
#   pesc_progress 0.5 "half-way"
#   sort data > "$PESC_OUTPUT_DIR/result.txt"
#
# Afterwards PESC_RANK, PESC_WORLD_SIZE, PESC_APP_DIR, PESC_CHECKPOINT_DIR, PESC_OUTPUT_DIR,
# PESC_MASTER_ADDR, PESC_MASTER_PORT, PESC_PARAMETERS (one per line) and PESC_SEED are set, and "$@"
# is your own arguments without PESC's. Started by PESC, the values are those of the job. Started
# alone, they are those of the command line (--rank 3 ...), else of the environment, else rank 0 of
# 1 in ".", with "./checkpoint" and "./output", which are made here.

# Takes PESC's arguments out of "$@": each of the arguments goes to the end, unless it is PESC's.
# Under PESC only those count that PESC added, behind --app_dir with its own value.
pesc_left_=$#
pesc_ours_=${PESC_JOB:+no}
while [ "$pesc_left_" -gt 0 ]; do
  pesc_name_=
  case $1 in
    --app_dir | --checkpoint_dir | --output_dir | --rank | --world_size | --master_addr | --master_port)
      if [ "$pesc_left_" -gt 1 ]; then pesc_name_=${1#--}; fi ;;
    --)
      if [ -z "${PESC_JOB-}" ]; then pesc_ours_=no; fi ;;
  esac
  if [ "$pesc_name_" = app_dir ] && [ "$2" = "${PESC_APP_DIR-}" ]; then pesc_ours_=; fi
  if [ "$1" = --parameters ] && [ -z "$pesc_ours_" ]; then
    shift
    pesc_left_=$((pesc_left_ - 1))
    if [ -z "${PESC_JOB-}" ]; then PESC_PARAMETERS=; fi
    while [ "$pesc_left_" -gt 0 ]; do
      if [ -z "${PESC_JOB-}" ]; then
        PESC_PARAMETERS="$PESC_PARAMETERS${PESC_PARAMETERS:+
}$1"
      fi
      shift
      pesc_left_=$((pesc_left_ - 1))
    done
  elif [ -n "$pesc_name_" ] && [ -z "$pesc_ours_" ]; then
    if [ -z "${PESC_JOB-}" ]; then
      case $pesc_name_ in
        app_dir) PESC_APP_DIR=$2 ;;
        checkpoint_dir) PESC_CHECKPOINT_DIR=$2 ;;
        output_dir) PESC_OUTPUT_DIR=$2 ;;
        rank) PESC_RANK=$2 ;;
        world_size) PESC_WORLD_SIZE=$2 ;;
        master_addr) PESC_MASTER_ADDR=$2 ;;
        master_port) PESC_MASTER_PORT=$2 ;;
      esac
    fi
    shift 2
    pesc_left_=$((pesc_left_ - 2))
  else
    set -- "$@" "$1"
    shift
    pesc_left_=$((pesc_left_ - 1))
  fi
done
unset pesc_left_ pesc_ours_ pesc_name_

: "${PESC_RANK:=0}" "${PESC_WORLD_SIZE:=1}" "${PESC_APP_DIR:=.}"
: "${PESC_CHECKPOINT_DIR:=./checkpoint}" "${PESC_OUTPUT_DIR:=./output}"
: "${PESC_MASTER_ADDR:=127.0.0.1}" "${PESC_MASTER_PORT:=9000}" "${PESC_PARAMETERS:=}"
: "${PESC_SEED:=$PESC_RANK}" "${PESC_ATTEMPT:=1}" "${PESC_EVENTS:=}"
export PESC_RANK PESC_WORLD_SIZE PESC_APP_DIR PESC_CHECKPOINT_DIR PESC_OUTPUT_DIR
export PESC_MASTER_ADDR PESC_MASTER_PORT PESC_PARAMETERS PESC_SEED
if [ -z "${PESC_JOB-}" ]; then mkdir -p "$PESC_CHECKPOINT_DIR" "$PESC_OUTPUT_DIR"; fi

# The i-th parameter, counted from 0.
pesc_parameter() { printf '%s\n' "$PESC_PARAMETERS" | sed -n "$(($1 + 1))p"; }

pesc_event_() {
  if [ -n "$PESC_EVENTS" ]; then printf '%s\n' "$(printf '%s' "$*" | tr '\n\r' '  ')" >> "$PESC_EVENTS"; fi
}

# How far the rank is, 0 to 1: pesc_progress 0.42 "fitting model 3"
pesc_progress() { pesc_event_ progress "$@"; }

# A number worth seeing while the job runs: pesc_metric price 10.45
pesc_metric() { pesc_event_ metric "$1" "$2"; }

# The checkpoint directory is complete now: PESC may save it.
pesc_checkpoint_done() { pesc_event_ checkpoint; }

# Saves standard input as a file of the checkpoint directory, whole or not at all.
pesc_save_checkpoint() {
  cat > "$PESC_CHECKPOINT_DIR/$1.tmp" &&
    { sync "$PESC_CHECKPOINT_DIR/$1.tmp" 2> /dev/null || sync; } &&
    mv -f "$PESC_CHECKPOINT_DIR/$1.tmp" "$PESC_CHECKPOINT_DIR/$1" &&
    pesc_checkpoint_done
}

# Prints what was saved under that name; fails at a fresh start.
pesc_load_checkpoint() {
  if [ ! -f "$PESC_CHECKPOINT_DIR/$1" ]; then return 1; fi
  cat "$PESC_CHECKPOINT_DIR/$1"
}
