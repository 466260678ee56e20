//! Is one of two counts larger than chance explains?
//!
//! Pure. In: how often one thing happened, how often the other, and the share that chance would give the first. Out: an
//! e-value, as its natural logarithm, because it outgrows every float after about a thousand observations.

/// The natural logarithm of the one-sided mixture e-value for `b` against `c`.
///
/// Under the null hypothesis each of the n = b + c events is of the first kind with probability at most `share`, given those
/// before it. The e-value is the likelihood ratio against `share`, averaged over the probabilities p above it with equal
/// weight:
///
/// ```text
/// E = 1 / (1 - share) * integral from share to 1 of (p / share)^b * ((1 - p) / (1 - share))^c dp
/// ```
///
/// For `share` = 1/2 that is 2^n * Beta(b + 1, c + 1) restricted to p > 1/2 (the restricted weight has density 2).
///
/// **Assumptions**: at most `share` given the past; nothing about independence. **Smallest sample**: none; E is 1 without
/// events, and for `share` = 1/2 reaches 1e6 first at 24 against none. **Guarantee**: at any time, also at one chosen by
/// looking, E >= x has a probability of at most 1/x under the null (Ville's inequality).
///
/// **Range**: `share` strictly between 0 and 1; outside it there is no evidence, and the answer is 0. **Time**: linear in `b`.
///
/// **Source**: J. Ville, Étude critique de la notion de collectif, 1939; H. Robbins, Statistical methods related to the law of
/// the iterated logarithm, Ann. Math. Stat. 41 (1970), section 2, for the mixture. The integral as a finite sum by
/// NIST Digital Library of Mathematical Functions, 8.17.5: the incomplete beta function as a binomial tail.
#[must_use]
pub fn ln_mixture_e_value(b: u64, c: u64, share: f64) -> f64 {
    if !(share > 0.0 && share < 1.0) {
        return 0.0;
    }
    // E is a sum of b + 1 terms. The first is 1 / (c + 1); the one for k - 1 events is the one for k times
    // k / (n + 2 - k) * (1 - share) / share. Terms rise to one peak and then fall.
    let beyond = b as f64 + c as f64 + 2.0;
    let odds = ((1.0 - share) / share).ln();
    let mut term = -(c as f64 + 1.0).ln();
    let (mut peak, mut sum) = (term, 1.0);
    for k in (1..=b).rev() {
        let k = k as f64;
        let step = k.ln() - (beyond - k).ln() + odds;
        term += step;
        if term > peak {
            sum = sum * (peak - term).exp() + 1.0;
            peak = term;
        } else {
            sum += (term - peak).exp();
            // All further terms together are below the precision of the sum.
            if step < 0.0 && term - peak < -60.0 {
                break;
            }
        }
    }
    peak + sum.ln()
}

/// The natural logarithm of the mean of two values that are given by their logarithms.
///
/// The mean of e-values is an e-value however they depend on each other; their maximum and, in general, their product are
/// not. **Source**: V. Vovk and R. Wang, E-values: calibration, combination and applications, Ann. Stat. 49 (2021), section 3.
#[must_use]
pub fn ln_mean(a: f64, b: f64) -> f64 {
    let (large, small) = if a < b { (b, a) } else { (a, b) };
    large + (small - large).exp().ln_1p() - std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9 * b.abs().max(1.0)
    }

    /// The definition, integrated numerically.
    fn by_integral(b: u64, c: u64, share: f64) -> f64 {
        const STEPS: u32 = 200_000;
        let width = (1.0 - share) / f64::from(STEPS);
        let heights = (0..STEPS).map(|step| {
            let p = share + (f64::from(step) + 0.5) * width;
            (b as f64 * (p / share).ln() + c as f64 * ((1.0 - p) / (1.0 - share)).ln()).exp()
        });
        (heights.sum::<f64>() * width / (1.0 - share)).ln()
    }

    #[test]
    fn agrees_with_its_definition() {
        for (b, c, share) in [
            (0, 0, 0.5),
            (1, 0, 0.5),
            (24, 0, 0.5),
            (7, 30, 0.5),
            (40, 3, 0.9),
            (12, 12, 0.1),
            (0, 9, 0.3),
        ] {
            let (sum, integral) = (ln_mixture_e_value(b, c, share), by_integral(b, c, share));
            assert!((sum - integral).abs() < 1e-6, "{b} {c} {share}: {sum} {integral}");
        }
    }

    #[test]
    fn twenty_four_against_none_is_the_least_that_reaches_a_million() {
        let million = 1e6_f64.ln();
        assert!(ln_mixture_e_value(24, 0, 0.5) >= million);
        assert!(ln_mixture_e_value(23, 0, 0.5) < million);
        assert!(close(
            ln_mixture_e_value(24, 0, 0.5),
            ((33_554_432.0 - 1.0) / 25.0_f64).ln()
        ));
    }

    #[test]
    fn is_one_on_average_under_the_null() {
        // Summed over all outcomes of n tosses of a coin with exactly that share.
        for share in [0.5, 0.2, 0.75] {
            let n = 30_u64;
            let mut weight = (1.0_f64 - share).powi(30);
            let mut mean = 0.0;
            for b in 0..=n {
                mean += weight * ln_mixture_e_value(b, n - b, share).exp();
                weight *= (n - b) as f64 / (b + 1) as f64 * share / (1.0 - share);
            }
            assert!(close(mean, 1.0), "{share}: {mean}");
        }
    }

    #[test]
    fn large_counts_stay_finite_and_equal_counts_are_no_evidence() {
        let overwhelming = ln_mixture_e_value(1_000_000, 0, 0.5);
        assert!((overwhelming - (1_000_001.0 * std::f64::consts::LN_2 - 1_000_001.0_f64.ln())).abs() < 1e-3);
        assert!(ln_mixture_e_value(1_000_000, 1_000_000, 0.5) < 0.0);
        assert!(ln_mixture_e_value(0, 1_000_000, 0.5) < 0.0);
        assert_eq!(ln_mixture_e_value(5, 0, 1.0), 0.0);
        assert_eq!(ln_mixture_e_value(5, 0, f64::NAN), 0.0);
    }

    #[test]
    fn mean_of_e_values() {
        assert!(close(ln_mean(3.0_f64.ln(), 5.0_f64.ln()), 4.0_f64.ln()));
        assert!(close(ln_mean(5.0_f64.ln(), 3.0_f64.ln()), 4.0_f64.ln()));
        assert!(close(ln_mean(5_000.0, 0.0), 5_000.0 - std::f64::consts::LN_2));
    }
}
