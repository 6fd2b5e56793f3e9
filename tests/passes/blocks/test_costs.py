from wootz.passes.blocks.costs import BlockUse, Cost, block_uses, estimate_work, total
from wootz.passes.plan.blocks import BlockPlan, Symbol, TuningBlock


def test_block_uses():
    first, second = TuningBlock((Symbol(0, 0.5), Symbol(1, 0.5))), TuningBlock((Symbol(2, 0.3),))
    plan = BlockPlan((first, second), ((first, second), (first, None), (None, None, second)), uncovered=())
    costs = {Symbol(0, 0.5): Cost(1, 10), Symbol(1, 0.5): Cost(2, 20), Symbol(2, 0.3): Cost(3, 30)}
    assert block_uses(plan, costs) == (
        BlockUse(first, (0, 1), Cost(3, 30)),
        BlockUse(second, (0, 2), Cost(3, 30)),
    )


def test_work_leaves_out_blocks_that_equal_the_teacher():
    pruned, whole = TuningBlock((Symbol(0, 0.5),)), TuningBlock((Symbol(1, 0.0),))
    uses = [BlockUse(pruned, (0, 1, 2), Cost(1, 10)), BlockUse(whole, (0, 1), Cost(1, 1000))]
    work = estimate_work(uses, groups=2, teacher=Cost(5, 100), networks=[Cost(3, 60), Cost(3, 40)])
    assert (work.students, work.teacher, work.separate, work.fine_tuning) == (30, 200, 90, 300)
    assert work.pretraining == 230
    assert work.break_even == 230 / 300


def test_total_of_nothing():
    assert total([]) == Cost(0, 0)
