"""jacobian, hessian, pullback."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

import fluxax as fx

A = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)


def test_jacobian_of_a_linear_map_is_its_matrix() -> None:
    by_x, by_c = fx.jacobian(lambda x, c: c * (A @ x), jnp.ones(2), 3.0)
    np.testing.assert_allclose(by_x, 3 * A)
    np.testing.assert_allclose(by_c, A @ np.ones(2))


def test_jacobian_by_a_model_has_its_shape() -> None:
    model = fx.Dense(2, 3)
    (found,) = fx.jacobian(lambda m: m(jnp.ones(2)), model)
    assert found.weight.shape == (3, 2, 3)
    np.testing.assert_allclose(found.bias, np.eye(3))


def test_hessian_of_a_quadratic_form() -> None:
    q = A.T @ A
    np.testing.assert_allclose(fx.hessian(lambda x: x @ q @ x / 2, np.ones(2)), q)


def test_pullback() -> None:
    value, back = fx.pullback(lambda x, y: x * y, jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(value, [3.0, 8.0])
    by_x, by_y = back(jnp.array([1.0, 10.0]))
    np.testing.assert_allclose(by_x, [3.0, 40.0])
    np.testing.assert_allclose(by_y, [1.0, 20.0])
