"""Mean teachers in plain numbers."""

import pytest
import torch
from torch import nn

from attent_kit.teacher import mean_teacher, teach


def filled(network, value):
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(value)


def test_the_teacher_is_the_student_after_one_step_and_the_mean_of_both_after_two():
    student = nn.Linear(2, 3)
    teacher, step = mean_teacher(student), torch.zeros((), dtype=torch.int64)
    filled(student, 1.0)
    teach(teacher, student, step, 0.9)  # a = 1 - 1 / 1
    assert torch.equal(teacher.weight, torch.ones(3, 2)) and step == 1
    filled(student, 3.0)
    teach(teacher, student, step, 0.9)  # a = 1 - 1 / 2
    assert torch.allclose(teacher.weight, torch.full((3, 2), 2.0))
    for _ in range(50):
        teach(teacher, student, step, 0.9)
    before = teacher.weight.clone()
    filled(student, 13.0)
    teach(teacher, student, step, 0.9)  # a = 0.9
    assert torch.allclose(teacher.weight, 0.9 * before + 1.3, atol=1e-5)


def test_running_statistics_follow_and_counters_are_taken_over():
    student = nn.BatchNorm1d(2)
    teacher, step = mean_teacher(student), torch.ones((), dtype=torch.int64)
    student.running_mean.fill_(4.0)
    student.num_batches_tracked.fill_(7)
    teach(teacher, student, step, 0.9)
    assert teacher.running_mean.tolist() == [2.0, 2.0] and teacher.num_batches_tracked == 7


def test_a_teacher_needs_no_gradient_and_leaves_its_student_alone():
    student = nn.Linear(2, 2)
    teacher = mean_teacher(student)
    assert not any(p.requires_grad for p in teacher.parameters()) and all(p.requires_grad for p in student.parameters())
    before = student.weight.clone()
    filled(teacher, 5.0)
    teach(teacher, student, torch.full((), 9), 0.5)
    assert torch.equal(student.weight, before)


def test_a_network_of_another_shape_is_no_student():
    with pytest.raises(ValueError):
        teach(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), torch.zeros((), dtype=torch.int64), 0.9)
