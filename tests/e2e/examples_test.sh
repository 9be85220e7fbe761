# Every example, as its README line runs it, on a small size.
. "$(dirname "$0")/lib.sh"
examples=$(dirname "$PESC_BIN")/examples
cp "$examples"/* . 2>/dev/null

expect 0 ./hello_submit ./hello
equal "$(cat "$WORK/out")" "$(for i in 0 1 2 3 4 5 6 7 8 9; do echo "hello from rank $i of 10"; done)"

expect 0 ./event_loop ./hello
prints "finished: every rank succeeded"

# Example 1: five repetitions, each with a stream of its own.
expect 0 pesc run -n 5 -o gaussian-cc -- ./gaussian 20000
equal "$(grep -c '^rank [0-4]: 40000 numbers, mean -\?0\.0' gaussian-cc/output.txt)" 5
equal "$(cut -d: -f2 gaussian-cc/output.txt | sort -u | wc -l)" 5 "the ranks' numbers differ"
expect 0 pesc run -n 5 --inject env -o gaussian-py -- python3 gaussian.py 5000
equal "$(grep -c '^10000 numbers, mean -\?0\.0' gaussian-py/output.txt)" 5
expect 0 ./speed_up 2 2 ./gaussian 1000
prints "Amdahl's estimate at 1 % serial: 1.98"

# Example 2: the ranges of the thesis's Table 5, a hundredth of them; then its precision and value.
expect 0 pesc run -n 10 -o r-integral -- ./integral 10000
for rank in 0 1 2 3 4 5 6 7 8 9; do
  equal "$(head -n 1 r-integral/rank-$rank/output.txt | cut -d, -f2)" " $((rank * 1000))"
  equal "$(wc -l <r-integral/rank-$rank/output.txt)" 100
done
# 1 - sin(2)/2 = 0.545351286587; the trapezoids add h² sin(2) / 6 = 6.1e-9 with 9,990 points.
equal "$(tail -n 1 r-integral/output.txt | cut -d, -f2,3 | cut -c1-18)" " 9990, 0.545351292"
expect 0 ./speed_up 10 2 ./integral 2000

# Scenario 2: one k per rank over a shared file.
expect 0 pesc run -n 5 --parameters 1,5,10,15,20 --shared-file iris.csv -o r-knn -- ./knn iris.csv
equal "$(cut -d: -f1 r-knn/output.txt | tr '\n' ' ')" "k = 1 k = 5 k = 10 k = 15 k = 20 "
equal "$(head -n 1 r-knn/output.txt)" "k = 1: 144 of 150 right (96.0 %)"

# A sweep by placeholders over a program that knows nothing of PESC.
expect 0 pesc run -n 3 --inject none --parameters 30,45,60 --collect 'range-*.txt' -o sweep -- \
  ./projectile.sh '{parameters[rank]}' 20
equal "$(cat sweep/rank-1/range-45.txt)" "angle 45 speed 20 range 40.789"
present sweep/rank-2/range-60.txt
done_with_tests
