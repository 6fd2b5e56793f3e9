"""The space of a search spells its networks as the survey of a subspace does."""

from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.blocks.identifier import Alphabet
from wootz.passes.plan.blocks import Symbol
from wootz.passes.plan.space import Space

CHAIN = Space(("a", "b", "c"), ((0.0, 0.5), (0.0, 0.3, 1.0), (0.0, 0.5)), {1: (0,), 2: (0, 1), 3: (2,)})
CLOSED = Space(("a", "b"), ((0.0, 0.5), (0.0, 0.3)))


@given(
    st.sampled_from([CHAIN, CLOSED]).flatmap(lambda s: st.tuples(st.just(s), st.sampled_from(list(s.configurations()))))
)
def test_pieces_are_those_of_the_alphabet(chosen):
    space, configuration = chosen
    alphabet = Alphabet(space.sources)
    alphabet.spell((*configuration, 0.0))
    assert space.spell(configuration) == tuple(alphabet.letters)


def test_all_pieces_at_a_position_are_those_of_all_networks():
    for space in (CHAIN, CLOSED):
        networks = list(space.configurations())
        assert len(networks) == space.count
        for position in range(len(space.modules) + 1):
            pieces = list(space.pieces(position))
            assert len(set(pieces)) == len(pieces)
            assert set(pieces) == {space.spell(network)[position] for network in networks}


def test_what_options_alone_decide():
    values = {(m, r): 10.0 * m + r for m, options in enumerate(CHAIN.options) for r in options}
    quantity = CHAIN.by_option(values)
    assert quantity[Symbol(1, 0.3, (0.5,), is_open=True)] == 10.3
    assert CHAIN.total(quantity, (0.5, 1.0, 0.0)) == 0.5 + 11 + 20


def test_a_thinned_space_has_every_second_of_many_rates():
    eighths = tuple(i / 8 for i in range(9))
    space = Space(("a", "b", "c"), (eighths, (0.0, 0.3, 0.5, 0.7), (0.0,)), {3: (2,)})
    assert space.thinned.options == ((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.3, 0.5, 0.7), (0.0,))
    assert space.thinned.sources == space.sources
    assert space.thinned.thinned == space.thinned
