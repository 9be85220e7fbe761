#!/bin/sh
# A program that knows nothing of PESC: the range of a projectile for an angle (degrees) and a speed
# (m/s), into a file of its own naming. A sweep over it needs placeholders only:
#
#   pesc run -n 3 --inject none --parameters 30,45,60 --collect 'range-*.txt' -- \
#     ./projectile.sh '{parameters[rank]}' 20
angle=$1
speed=$2
awk -v a="$angle" -v v="$speed" 'BEGIN {
  pi = atan2(0, -1)
  printf "angle %s speed %s range %.3f\n", a, v, v * v * sin(2 * a * pi / 180) / 9.80665
}' > "range-$angle.txt"
