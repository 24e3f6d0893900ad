"""How a study spent its time: computing, starting jobs, and waiting.

    make study
    python benchmarks/study.py results/digits --cores 2

It reads the logs of a study that ran without interruption. Each log ends with the CPU time of the job's work, and of
starting Python and the libraries before it; the script sums these per rule. The study's wall time is from the start of
the first job to the end of the last. `busy` is the CPU time of all jobs over cores × wall time. `overhead` is the wall
time over the work, spread evenly over the cores: 1 would be a study whose jobs start instantly, on cores that never
wait. `--cores` are those of the machine, not Snakemake's.

Measured on 2 idle cores of a shared Intel Xeon, Python 3.11, `make study`:
    rule                  jobs   work, s  to start, s
    train                  120     449.8         63.4
    tune                     4     234.3         13.6
    sharpness               18     136.8         37.0
    figures                 29      60.6         35.4
    confirm                  9      36.3          9.7
    branching                4       5.2         13.7
    all                    251    1046.7        230.8
    study 683 s: busy 0.94, overhead 1.30
An hour before, with four jobs more, the same machine computed the same bits in 551 s: work 828 s, starts 196 s, busy
0.93, overhead 1.33.
On a shared AMD EPYC, when each branch was a job: work 852 s, starts 223 s, study 596 s, busy 0.90, overhead 1.40.
A log is that of a run, and six seeds share a process: 120 runs of 20 settings are 20 jobs.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

TOOK = re.compile(r"^took ([\d.]+) s \(([\d.]+) s CPU\); startup took ([\d.]+) s CPU\n\Z", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the study's folder, such as results/digits")
    parser.add_argument("--cores", type=int, required=True)
    arguments = parser.parse_args()

    by_rule, begins, ends = defaultdict(list), [], []
    logs = arguments.results / "logs"
    for log in logs.rglob("*.log"):
        last = TOOK.search(log.read_text())
        if not last:
            parser.error(f"{log}: the job did not complete; finish the study first")
        took, work, start = map(float, last.groups())
        by_rule[log.relative_to(logs).parts[0].removesuffix(".log")].append((work, start))
        ends.append(log.stat().st_mtime)
        begins.append(ends[-1] - took - start)

    print(f"{'rule':20s} {'jobs':>5s} {'work, s':>9s} {'to start, s':>12s}")
    for rule, jobs in sorted(by_rule.items(), key=lambda item: -sum(map(sum, item[1]))):
        work, start = map(sum, zip(*jobs, strict=True))
        print(f"{rule:20s} {len(jobs):5d} {work:9.1f} {start:12.1f}")
    work, start = map(sum, zip(*(job for jobs in by_rule.values() for job in jobs), strict=True))
    print(f"{'all':20s} {len(ends):5d} {work:9.1f} {start:12.1f}")
    wall, cores = max(ends) - min(begins), arguments.cores
    print(f"study {wall:.0f} s: busy {(work + start) / cores / wall:.2f}, overhead {cores * wall / work:.2f}")


if __name__ == "__main__":
    main()
