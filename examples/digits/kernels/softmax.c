/*
 * softmax: from ten numbers of any size to ten probabilities that add up to one.
 *
 *   scores[n][d] = exp(logits[n][d]) / sum over e of exp(logits[n][e])
 *
 * The largest number is subtracted first: the quotient stays the same, and no exponential
 * can overflow. expf is libm's, resolved by the runtime. One call computes one image.
 */
float expf(float);

void softmax(float scores[restrict 45][10],
             const float logits[restrict 45][10],
             int image)
{
    float largest = logits[image][0];
    for (int d = 1; d < 10; d++)
        largest = logits[image][d] > largest ? logits[image][d] : largest;

    float power[10], total = 0.0f;
    for (int d = 0; d < 10; d++) {
        power[d] = expf(logits[image][d] - largest);
        total += power[d];
    }

    for (int d = 0; d < 10; d++)
        scores[image][d] = power[d] / total;
}
