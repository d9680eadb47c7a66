"""The order of unlabeled pictures, and how they come into batches."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from yolo_kd.engine.mixing import MixedBatches, Mixture, Stream


class Items(list):
    """A data set of names."""

    @staticmethod
    def collate_fn(batch):
        return batch

    @property
    def labels(self):
        return [item["name"] for item in self]


def items(*names: str) -> Items:
    return Items({"name": name} for name in names)


class TestStream:
    def test_is_one_permutation_after_the_other(self):
        stream = Stream(5, seed=0)
        taken = [index for count in (3, 4, 1, 12) for index in stream.take(count)]
        rounds = [taken[i : i + 5] for i in range(0, 20, 5)]
        assert all(sorted(part) == list(range(5)) for part in rounds)
        assert len({tuple(part) for part in rounds}) > 1

    def test_goes_on_from_every_place(self):
        stream = Stream(5, seed=0)
        for taken in range(13):
            stream.note()
            place, coming = stream.noted, stream.take(8)
            other = Stream(5, seed=0)
            other.go_to(place)
            assert other.take(8) == coming and other.noted["at"] == place["at"], taken
            stream.go_to(place)
            stream.take(1)

    def test_draws_nothing_from_the_global_generator(self):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        Stream(5, seed=0).take(20)
        assert torch.equal(before, torch.get_rng_state())
        assert Stream(50, seed=0).take(50) != Stream(50, seed=1).take(50)

    @pytest.mark.parametrize(("count", "ranks"), [(8, 2), (7, 2), (2, 3)])
    def test_ranks_share_it(self, count, ranks):
        each = -(-count // ranks)
        shares = [Stream(count, 0, rank, ranks).take(each) for rank in range(ranks)]
        taken = [index for share in shares for index in share]
        assert set(taken) == set(range(count)) and len(taken) - count < ranks


class TestMixture:
    def test_labelled_ones_come_first_and_say_so(self):
        mixture = Mixture([items("a", "b"), items("p"), items("x", "y")], [True, True, False], 2)
        found = [mixture[i] for i in range(5)]
        assert [item["name"] for item in found] == ["a", "b", "p", "x", "y"]
        assert [item["labelled"] for item in found] == [True, True, True, False, False]
        assert len(mixture) == 2 and mixture.labels == ["a", "b"]
        with pytest.raises(IndexError):
            mixture[5]


class TestBatches:
    def test_each_gets_its_unlabeled_ones_at_the_end(self):
        stream = Stream(5, seed=0)
        batches = MixedBatches([[3, 1], [0, 2], [4]], stream, 3, offset=10)
        first, second = list(batches), list(batches)
        assert [batch[:-3] for batch in first] == [[3, 1], [0, 2], [4]] and len(batches) == 3
        assert all(batch[-3:] == sorted(batch[-3:]) for batch in first + second)
        drawn = Counter(index - 10 for batch in first + second for index in batch[-3:])
        assert set(drawn) == set(range(5)) and set(drawn.values()) == {3, 4}, "18 draws from 5"

    def test_an_epoch_notes_where_the_stream_was(self):
        stream = Stream(5, seed=0)
        batches = MixedBatches([[0], [1]], stream, 2, offset=10)
        next(iter(batches))
        assert stream.noted["at"] == 0 and stream.at == 2
        list(batches)
        assert stream.noted["at"] == 2

    def test_without_labelled_ones_they_are_sorted_by_parts(self):
        assert list(MixedBatches([[3, 1], [2, 0]])) == [[1, 3], [0, 2]]
